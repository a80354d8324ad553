//! The table of faults, a file per chapter: what a bad module does, and which check of the suite must see it.

mod attributes;
mod ciphers;
mod derivation;
mod faulty_keys;
mod find;
mod general;
mod login;
mod mechanisms;
mod messages;
mod network;
mod newer;
mod newest;
mod objects;
mod operations;
mod random;
mod sessions;
mod signatures;
mod slots;
mod vectors;
mod wrapping;

use cryptoki_sys::CK_RV;

use crate::call::Call;
use crate::functions::Function;

/// The real module behind a fault: one that has what the fault spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    /// SoftHSM2, a token of 2.40.
    SoftHsm,
    /// NSS softokn, which has messages, `C_SessionCancel` and more mechanisms.
    Nss,
    /// SoftHSM2, with the functions of `newer.rs` that the mutant adds.
    Newer,
    /// Strongroom's own module, which has a server.
    Network,
}

/// A row of the table.
pub struct Fault {
    /// What `MUTANT_FAULT` calls it.
    pub name: &'static str,
    /// The functions whose calls pass through it.
    pub on: &'static [Function],
    /// What it makes of such a call.
    pub act: fn(&Call<'_>) -> CK_RV,
    /// Section and title of PKCS#11 3.1, or another source, against which it is.
    pub clause: &'static str,
    /// What the module does, in one sentence.
    pub does: &'static str,
    /// The checks that must fail: each of them passes on a module that does right.
    pub killed_by: &'static [&'static str],
    /// The real module.
    pub behind: Behind,
}

/// The table of a chapter: `name [functions] act, clause, what it does, [checks that see it];`. The real module is SoftHSM2
/// unless `behind Nss;` comes first.
macro_rules! faults {
    (behind $behind:ident; $( $name:literal [$( $on:ident )*] $act:expr, $clause:literal, $does:literal, [$( $check:literal )*]; )*) => {
        /// The faults of this chapter.
        pub const FAULTS: &[$crate::faults::Fault] = &[ $( $crate::faults::Fault {
            name: $name,
            on: &[ $( $crate::functions::Function::$on, )* ],
            act: $act,
            clause: $clause,
            does: $does,
            killed_by: &[ $( $check, )* ],
            behind: $crate::faults::Behind::$behind,
        }, )* ];
    };
    ($( $row:tt )*) => { $crate::faults::faults! { behind SoftHsm; $( $row )* } };
}
pub(crate) use faults;

/// Every fault, chapter by chapter.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    [
        general::FAULTS,
        slots::FAULTS,
        sessions::FAULTS,
        login::FAULTS,
        objects::FAULTS,
        find::FAULTS,
        attributes::FAULTS,
        operations::FAULTS,
        ciphers::FAULTS,
        signatures::FAULTS,
        random::FAULTS,
        wrapping::FAULTS,
        derivation::FAULTS,
        faulty_keys::FAULTS,
        messages::FAULTS,
        mechanisms::FAULTS,
        vectors::FAULTS,
        newer::FAULTS,
        newest::FAULTS,
        network::FAULTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_rows_complete() {
        let mut names = BTreeSet::new();
        for fault in all() {
            assert!(names.insert(fault.name), "{} stands twice in the table", fault.name);
            let complete = !fault.on.is_empty() && !fault.clause.is_empty() && !fault.does.is_empty();
            let one_line = !fault.does.contains('\n') && !fault.clause.contains('\n');
            assert!(complete && one_line && !fault.killed_by.is_empty(), "{}", fault.name);
        }
        assert!(names.len() >= 60, "only {} faults", names.len());
    }
}
