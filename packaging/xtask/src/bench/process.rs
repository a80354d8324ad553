//! What processes cost: `/proc/PID/stat` and `/proc/PID/task/TID/stat` (proc(5)), of a process and all that it started.

use std::{fs, path::Path, time::Duration};

/// The CPU time of a process and its descendants that live.
pub fn tree_cpu(root: u32) -> Duration {
    total(family(root).into_iter())
}

/// The CPU time of those of its threads, and of its descendants' that live, whose names begin like one of these.
pub fn threads_cpu(root: u32, names: &[&str]) -> Duration {
    let threads =
        family(root).into_iter().flat_map(|process| stats(format!("/proc/{}/task", process.number)));
    total(threads.filter(|thread| names.iter().any(|name| thread.name.starts_with(name))))
}

/// A process or a thread.
struct Stat {
    number: u32,
    name: String,
    parent: u32,
    ticks: u64,
}

/// A process and its descendants that live.
fn family(root: u32) -> Vec<Stat> {
    let (mut family, mut others): (Vec<_>, Vec<_>) =
        stats("/proc").partition(|process| process.number == root);
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|process| process.number) {
        let (children, rest) = others.into_iter().partition(|process| process.parent == parent);
        family.extend::<Vec<_>>(children);
        others = rest;
        next += 1;
    }
    family
}

fn total(stats: impl Iterator<Item = Stat>) -> Duration {
    // A tick is a hundredth of a second in what the kernel tells user space.
    Duration::from_millis(stats.map(|stat| stat.ticks).sum::<u64>() * 10)
}

/// What a folder of processes or threads lists.
fn stats(folder: impl AsRef<Path>) -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        read(number, &fs::read_to_string(entry.path().join("stat")).ok()?)
    })
}

/// Fields 2, 4, 14 and 15: name, parent, user and system time. The name may hold anything, so count from its end.
fn read(number: u32, text: &str) -> Option<Stat> {
    let (name, rest) = text.rsplit_once(')')?;
    let name = name.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let times: Vec<u64> = fields.skip(9).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(Stat { number, name, parent, ticks: times.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_is_seen() {
        let me = std::process::id();
        let before = tree_cpu(me);
        let work = move || {
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_millis(200) {
                std::hint::spin_loop();
            }
            (tree_cpu(me) - before, threads_cpu(me, &["busy bee"]), threads_cpu(me, &["idle"]))
        };
        let bee = std::thread::Builder::new().name("busy bee 1".into()).spawn(work).unwrap();
        let (all, bee, idle) = bee.join().unwrap();
        assert!(all >= bee && bee >= Duration::from_millis(50), "{all:?} {bee:?}");
        assert_eq!(idle, Duration::ZERO);
    }
}
