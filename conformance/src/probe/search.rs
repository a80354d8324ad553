//! The search of a model: what an attacker who may call every function can come to know.
//!
//! Knowledge only grows, so the search goes round until nothing is new; what it does not find then is not there in
//! the model, in any number of calls, with one key of each part: one of the token's making and one of the attacker's choice.

use std::collections::BTreeMap;
use std::fmt;

use super::model::{Change, Flag, Flags, Model, Origin};

/// Whose value a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// The sensitive key that the attacker is after.
    Victim,
    /// A key that the token made for the attacker.
    Wrapper,
    /// A key that the attacker chose.
    Chosen,
}

/// What the attacker has or knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A handle of a key.
    Handle(Value, Flags),
    /// A key wrapped by another: what is within, and by what.
    Blob(Value, Value),
    /// A key in clear.
    Clear(Value),
}

/// What gave a fact, from the facts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It was so from the beginning.
    Given,
    /// A key came to be.
    Made(Origin),
    /// A key was unwrapped: from a blob, by a handle.
    Unwrapped(Fact, Fact),
    /// An attribute of a key was turned over.
    Turned(Change, Flag, Fact),
    /// A key was wrapped: the wrapping key and the key.
    Wrapped(Fact, Fact),
    /// A wrapped key was decrypted: by a handle, the blob.
    Decrypted(Fact, Fact),
    /// A key in clear was encrypted: by a handle, the key.
    Encrypted(Fact, Fact),
    /// A wrapped key was opened outside of the token: the wrapping key in clear, the blob.
    Opened(Fact, Fact),
    /// `CKA_VALUE` was read.
    Read(Fact),
}

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// What comes of it.
    pub gives: Fact,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A path to the victim in clear, in the order of its steps.
    Path(Vec<Step>),
    /// There is none. The search was complete after so many rounds, with so many facts.
    Nothing {
        /// Rounds until nothing was new.
        rounds: usize,
        /// Facts in the end.
        facts: usize,
    },
}

type Knowledge = BTreeMap<Fact, (usize, Act)>;

/// Looks for a path from a victim with these attributes to its value in clear. Two keys of the token's making have two
/// values, so the search is made for each set of attributes that one may have.
pub fn search(model: &Model, victim: Flags) -> Found {
    let mut wrappers: Vec<Option<Flags>> = vec![None];
    wrappers.extend(Flags::every().filter(|flags| model.bears(Origin::Generate, *flags)).map(Some));
    let (mut most_rounds, mut most_facts) = (0, 0);
    for wrapper in wrappers {
        match search_with(model, victim, wrapper) {
            Found::Nothing { rounds, facts } => {
                most_rounds = most_rounds.max(rounds);
                most_facts += facts;
            }
            found @ Found::Path(_) => return found,
        }
    }
    Found::Nothing { rounds: most_rounds, facts: most_facts }
}

fn search_with(model: &Model, victim: Flags, wrapper: Option<Flags>) -> Found {
    let given = [Fact::Handle(Value::Victim, victim), Fact::Clear(Value::Chosen)];
    let mut known: Knowledge = given.into_iter().map(|fact| (fact, (0, Act::Given))).collect();
    if let Some(flags) = wrapper {
        known.insert(Fact::Handle(Value::Wrapper, flags), (0, Act::Made(Origin::Generate)));
    }
    for flags in Flags::every().filter(|flags| model.bears(Origin::Create, *flags)) {
        known.insert(Fact::Handle(Value::Chosen, flags), (0, Act::Made(Origin::Create)));
    }
    let mut rounds = 0;
    loop {
        rounds += 1;
        let before = known.len();
        for (fact, act) in round(model, &known) {
            known.entry(fact).or_insert((rounds, act));
        }
        if known.contains_key(&Fact::Clear(Value::Victim)) {
            return Found::Path(path(&known, Fact::Clear(Value::Victim)));
        }
        if known.len() == before {
            return Found::Nothing { rounds, facts: before };
        }
    }
}

const VALUES: [Value; 3] = [Value::Victim, Value::Wrapper, Value::Chosen];

/// Everything that one more call gives.
fn round(model: &Model, known: &Knowledge) -> Vec<(Fact, Act)> {
    let mut new = Vec::new();
    for fact in known.keys() {
        if let Fact::Handle(value, flags) = *fact {
            new.extend(turns(model, *fact, value, flags));
        }
    }
    for value in VALUES {
        let is_shown = |flags: Flags| model.shows(flags);
        new.extend(first(known, value, is_shown).map(|key| (Fact::Clear(value), Act::Read(key))));
        for inner in VALUES {
            new.extend(wraps(model, known, value, inner));
            new.extend(opens(model, known, value, inner));
        }
    }
    new
}

/// The handle of a value, known longest, whose attributes are so.
fn first(known: &Knowledge, value: Value, wanted: impl Fn(Flags) -> bool) -> Option<Fact> {
    let fits = |fact: &Fact| matches!(fact, Fact::Handle(of, flags) if *of == value && wanted(*flags));
    known.iter().filter(|(fact, _)| fits(fact)).min_by_key(|(_, (round, _))| *round).map(|(fact, _)| *fact)
}

fn turns(model: &Model, from: Fact, value: Value, now: Flags) -> Vec<(Fact, Act)> {
    let mut new = Vec::new();
    for change in [Change::Set, Change::Copy] {
        for flag in Flag::ALL {
            if let Some(after) = model.turned(change, now, *flag) {
                new.push((Fact::Handle(value, after), Act::Turned(change, *flag, from)));
            }
        }
    }
    new
}

/// A key wrapped by another: by any key, or by a trusted one if it asks for one.
fn wraps(model: &Model, known: &Knowledge, by: Value, inner: Value) -> Option<(Fact, Act)> {
    let may_leave = |flags: Flags| flags.has(Flag::Extractable) || !model.heeds_extractable;
    let any = |flags: Flags| flags.has(Flag::Wrap);
    let trusting = |flags: Flags| flags.has(Flag::WrapWithTrusted) && model.heeds_trust;
    let trusted = |flags: Flags| any(flags) && flags.has(Flag::Trusted);
    let freely = first(known, by, any).zip(first(known, inner, |flags| may_leave(flags) && !trusting(flags)));
    let pair = freely.or_else(|| first(known, by, trusted).zip(first(known, inner, may_leave)));
    let (wrapper, key) = pair.filter(|_| model.wraps)?;
    Some((Fact::Blob(inner, by), Act::Wrapped(wrapper, key)))
}

/// What a key makes of another one that it wraps, and of one in clear.
fn opens(model: &Model, known: &Knowledge, by: Value, inner: Value) -> Vec<(Fact, Act)> {
    let mut new = Vec::new();
    let (blob, clear) = (Fact::Blob(inner, by), Fact::Clear(inner));
    let encrypts = first(known, by, |flags| flags.has(Flag::Encrypt) && model.crossing.encrypt_seals);
    if let Some(key) = encrypts.filter(|_| known.contains_key(&clear)) {
        new.push((blob, Act::Encrypted(key, clear)));
    }
    if !known.contains_key(&blob) {
        return new;
    }
    if let Some(key) = first(known, by, |flags| flags.has(Flag::Decrypt) && model.crossing.decrypt_opens) {
        new.push((clear, Act::Decrypted(key, blob)));
    }
    if known.contains_key(&Fact::Clear(by)) {
        new.push((clear, Act::Opened(Fact::Clear(by), blob)));
    }
    if let Some(key) = first(known, by, |flags| flags.has(Flag::Unwrap)) {
        let born = Flags::every().filter(|flags| model.bears(Origin::Unwrap, *flags));
        new.extend(born.map(|flags| (Fact::Handle(inner, flags), Act::Unwrapped(blob, key))));
    }
    new
}

/// What an act needs.
fn needs(act: Act) -> Vec<Fact> {
    match act {
        Act::Given | Act::Made(_) => Vec::new(),
        Act::Turned(_, _, from) | Act::Read(from) => vec![from],
        Act::Unwrapped(one, other)
        | Act::Wrapped(one, other)
        | Act::Decrypted(one, other)
        | Act::Encrypted(one, other)
        | Act::Opened(one, other) => vec![one, other],
    }
}

/// The steps to a fact, earlier rounds first, each once.
fn path(known: &Knowledge, goal: Fact) -> Vec<Step> {
    let (mut wanted, mut steps) = (vec![goal], BTreeMap::new());
    while let Some(fact) = wanted.pop() {
        let Some((round, act)) = known.get(&fact) else { continue };
        if steps.insert((*round, fact), *act).is_none() {
            wanted.extend(needs(*act));
        }
    }
    steps.into_iter().map(|((_, gives), act)| Step { act, gives }).collect()
}

impl Value {
    const fn name(self) -> &'static str {
        match self {
            Self::Victim => "the sensitive key",
            Self::Wrapper => "a key of the token's making",
            Self::Chosen => "a key of the attacker's choice",
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(value, flags) => write!(f, "{} with {flags}", value.name()),
            Self::Blob(inner, under) => write!(f, "{} under {}", inner.name(), under.name()),
            Self::Clear(value) => write!(f, "{} in clear", value.name()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.act {
            Act::Given => "given",
            Act::Made(Origin::Generate) => "C_GenerateKey",
            Act::Made(Origin::Create) => "C_CreateObject",
            Act::Made(Origin::Unwrap) | Act::Unwrapped(..) => "C_UnwrapKey",
            Act::Turned(Change::Set, ..) => "C_SetAttributeValue",
            Act::Turned(Change::Copy, ..) => "C_CopyObject",
            Act::Wrapped(..) => "C_WrapKey",
            Act::Decrypted(..) => "C_Decrypt",
            Act::Encrypted(..) => "C_Encrypt",
            Act::Opened(..) => "outside of the token",
            Act::Read(_) => "C_GetAttributeValue",
        };
        write!(f, "{what}: {}", self.gives)
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::super::model::{Alteration, Birth, Crossing};
    use super::*;

    fn born() -> Birth {
        Birth { offered: true, always_off: vec![Flag::Trusted], ..Birth::default() }
    }

    /// A module that heeds every word about the key itself and none about what keys do to each other.
    fn naive() -> Model {
        let alteration = Alteration {
            sticky_on: vec![Flag::Sensitive, Flag::WrapWithTrusted],
            sticky_off: vec![Flag::Extractable, Flag::Trusted],
            conflicts: Vec::new(),
        };
        Model {
            generate: born(),
            create: born(),
            unwrap: born(),
            set: alteration.clone(),
            copy: alteration,
            wraps: true,
            heeds_trust: true,
            heeds_extractable: true,
            hides_sensitive: true,
            hides_unextractable: true,
            crossing: Crossing { decrypt_opens: true, encrypt_seals: true },
        }
    }

    /// What no separation of uses leaves: a key does one thing, nobody brings a key, and what comes back in may only
    /// work as data's key and stays sensitive.
    fn separated() -> Model {
        let mut model = naive();
        let uses = [Flag::Wrap, Flag::Unwrap, Flag::Encrypt, Flag::Decrypt];
        let conflicts: Vec<(Flag, Flag)> = vec![
            (Flag::Wrap, Flag::Decrypt),
            (Flag::Wrap, Flag::Encrypt),
            (Flag::Unwrap, Flag::Encrypt),
            (Flag::Unwrap, Flag::Decrypt),
            (Flag::Wrap, Flag::Extractable),
            (Flag::Unwrap, Flag::Extractable),
        ];
        model.generate.conflicts = conflicts;
        model.generate.always_on = vec![Flag::Sensitive];
        model.create = Birth::default();
        model.unwrap.always_on = vec![Flag::Sensitive];
        model.unwrap.always_off.extend([Flag::Wrap, Flag::Unwrap]);
        for change in [&mut model.set, &mut model.copy] {
            change.sticky_off.extend(uses);
            change.sticky_on.extend(uses);
        }
        model
    }

    fn steps(found: &Found) -> Vec<String> {
        match found {
            Found::Path(steps) => steps.iter().map(ToString::to_string).collect(),
            Found::Nothing { .. } => Vec::new(),
        }
    }

    const EXTRACTABLE: &[Flag] = &[Flag::Sensitive, Flag::Extractable];

    #[test]
    fn wrap_and_decrypt_is_found() {
        let mut model = naive();
        for change in [&mut model.set, &mut model.copy] {
            change.sticky_off.extend([Flag::Wrap, Flag::Decrypt]);
        }
        model.generate.always_on = vec![Flag::Sensitive];
        model.create = Birth::default();
        model.unwrap = Birth::default();
        model.crossing.encrypt_seals = false;
        let found = steps(&search(&model, Flags::of(EXTRACTABLE)));
        let acts: Vec<&str> = found.iter().filter_map(|step| step.split(':').next()).collect();
        assert_eq!(acts.last(), Some(&"C_Decrypt"), "{found:?}");
        assert!(acts.contains(&"C_WrapKey") && acts.contains(&"C_GenerateKey"), "{found:?}");
        model.crossing.decrypt_opens = false;
        assert!(matches!(search(&model, Flags::of(EXTRACTABLE)), Found::Nothing { .. }));
    }

    #[test]
    fn a_key_that_is_made_to_wrap_itself_is_found() {
        let mut model = naive();
        (model.generate, model.create, model.unwrap) = Default::default();
        let found = steps(&search(&model, Flags::of(EXTRACTABLE)));
        assert!(
            found.contains(&"C_WrapKey: the sensitive key under the sensitive key".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn encrypt_and_unwrap_is_found() {
        let mut model = naive();
        model.create = Birth::default();
        model.crossing.decrypt_opens = false;
        model.unwrap.always_on = vec![Flag::Sensitive];
        let found = steps(&search(&model, Flags::of(EXTRACTABLE)));
        let acts: Vec<&str> = found.iter().filter_map(|step| step.split(':').next()).collect();
        assert!(acts.contains(&"C_Encrypt") && acts.contains(&"C_UnwrapKey"), "{found:?}");
        assert_eq!(acts.last(), Some(&"outside of the token"), "{found:?}");
    }

    #[test]
    fn a_wrapping_key_of_the_attackers_choice_is_found() {
        let mut model = separated();
        model.create = born();
        model.crossing.decrypt_opens = false;
        let found = steps(&search(&model, Flags::of(EXTRACTABLE)));
        assert_eq!(
            found.last().map(String::as_str),
            Some("outside of the token: the sensitive key in clear")
        );
    }

    #[test]
    fn what_comes_back_less_guarded_is_found() {
        let mut model = separated();
        model.unwrap.always_on.clear();
        let found = search(&model, Flags::of(EXTRACTABLE));
        assert!(
            steps(&found).last().is_some_and(|step| step.starts_with("C_GetAttributeValue")),
            "{found:?}"
        );
    }

    #[test]
    fn a_sensitive_key_that_forgets_it_is_found() {
        for change in [Change::Set, Change::Copy] {
            let mut model = separated();
            match change {
                Change::Set => model.set.sticky_on.clear(),
                Change::Copy => model.copy.sticky_on.clear(),
            }
            assert!(matches!(search(&model, Flags::of(EXTRACTABLE)), Found::Path(_)), "{change:?}");
        }
    }

    /// A key that wraps itself comes back with another use.
    #[test]
    fn a_key_that_wraps_itself_is_found() {
        let mut model = separated();
        model.generate.conflicts.retain(|(_, other)| *other != Flag::Extractable);
        let found = steps(&search(&model, Flags::of(EXTRACTABLE)));
        assert!(
            found
                .iter()
                .any(|step| step.contains("a key of the token's making under a key of the token's making"))
        );
    }

    #[test]
    fn separated_uses_have_no_path() {
        let found = search(&separated(), Flags::of(EXTRACTABLE));
        assert!(matches!(found, Found::Nothing { .. }), "{found:?}");
    }

    #[test]
    fn an_unextractable_or_trusting_key_is_safe_in_a_naive_module() {
        for victim in [&[Flag::Sensitive][..], &[Flag::Sensitive, Flag::Extractable, Flag::WrapWithTrusted]] {
            assert!(matches!(search(&naive(), Flags::of(victim)), Found::Nothing { .. }), "{victim:?}");
        }
        let mut open = naive();
        open.hides_unextractable = false;
        let shown = search(&open, Flags::of(&[Flag::Sensitive]));
        assert!(matches!(shown, Found::Nothing { .. }), "what is sensitive stays hidden: {shown:?}");
        let mut deaf = naive();
        deaf.heeds_extractable = false;
        assert!(matches!(search(&deaf, Flags::of(&[Flag::Sensitive])), Found::Path(_)));
    }

    #[test]
    fn a_path_has_what_each_step_needs_before_it() {
        let Found::Path(steps) = search(&naive(), Flags::of(EXTRACTABLE)) else { panic!("no path") };
        for (place, step) in steps.iter().enumerate() {
            for need in needs(step.act) {
                assert!(steps[..place].iter().any(|earlier| earlier.gives == need), "{need} before {step}");
            }
        }
    }
}
