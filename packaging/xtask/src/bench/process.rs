//! What processes cost: `/proc/PID/stat` (proc(5)), of a process and all that it started.

use std::{fs, time::Duration};

/// The CPU time of a process and its descendants that live.
pub fn tree_cpu(root: u32) -> Duration {
    let table: Vec<Stat> = processes().filter_map(read).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(table.iter().filter(|stat| stat.parent == parent).map(|stat| stat.process));
        next += 1;
    }
    let ticks: u64 = table.iter().filter(|stat| family.contains(&stat.process)).map(|stat| stat.ticks).sum();
    // A tick is a hundredth of a second in what the kernel tells user space.
    Duration::from_millis(ticks * 10)
}

struct Stat {
    process: u32,
    parent: u32,
    ticks: u64,
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Fields 4, 14 and 15: parent, user and system time. Field 2, the name, may hold anything, so count from its end.
fn read(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let times: Vec<u64> = fields.skip(9).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(Stat { process, parent, ticks: times.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_is_seen() {
        let before = tree_cpu(std::process::id());
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        let spent = tree_cpu(std::process::id()) - before;
        assert!(spent >= Duration::from_millis(50), "{spent:?}");
    }
}
