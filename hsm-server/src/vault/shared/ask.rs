//! Asking several nodes the same, side by side.

use std::{thread, time::Duration};

use super::super::{
    Vault,
    cluster::View,
    nodes::{Answer, Question},
};
use crate::{cluster::Member, platform::Platform};

impl<P: Platform> Vault<P> {
    /// Asks these nodes to do something, side by side: who did not do it, and why.
    pub(super) fn ask_all<'m>(
        &self,
        view: &View,
        members: impl IntoIterator<Item = &'m Member>,
        question: &Question,
        patience: Duration,
    ) -> Vec<String> {
        let done = |answer| matches!(answer, Answer::Done | Answer::Vouched { .. }).then_some(());
        let answers = self.ask_each(view, members, question, patience, done);
        answers.into_iter().filter_map(Result::err).collect()
    }

    /// Asks nodes at the same time, and says of each, in their order, what it answered, as far as `wanted` takes it for an
    /// answer to this question, or what is wrong with it.
    pub(super) fn ask_each<'m, T: Send>(
        &self,
        view: &View,
        members: impl IntoIterator<Item = &'m Member>,
        question: &Question,
        patience: Duration,
        wanted: impl Fn(Answer) -> Option<T> + Sync,
    ) -> Vec<Result<T, String>> {
        let ask = |member: &Member| match self.consult(view, member, question, patience) {
            Ok(answer) => {
                wanted(answer).ok_or_else(|| format!("node {}: it answers another question", member.name))
            }
            Err(error) => Err(format!("node {}: {error}", member.name)),
        };
        thread::scope(|scope| {
            let ask = &ask;
            let begin = |member: &'m Member| {
                let thread = thread::Builder::new().name("ceremony".into());
                thread.spawn_scoped(scope, move || ask(member)).map_err(|_| ask(member))
            };
            let asked: Vec<_> = members.into_iter().map(begin).collect();
            let panicked = |_| Err("the thread that asked a node panicked".to_owned());
            let answer = |asked: Result<thread::ScopedJoinHandle<'_, _>, _>| match asked {
                Ok(thread) => thread.join().unwrap_or_else(panicked),
                Err(answer) => answer,
            };
            asked.into_iter().map(answer).collect()
        })
    }
}
