//! A ceremony between the nodes that hold shares, whatever it is for: who coordinates it, what each party checks before
//! it takes part, and the sealed letters between them.

pub mod ceremonies;
pub mod draft;
mod letters;
pub mod making;
pub mod party;
pub mod plan;
pub mod relay;
pub mod setback;
mod steps;
