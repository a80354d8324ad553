//! Learns a model from a module: what templates it takes, and what the keys are that come of them.

use cryptoki_sys::*;

use super::model::{Alteration, Birth, Change, Crossing, Flag, Model, Origin};
use super::replay;
use crate::check::Stop;
use crate::session::Session;
use crate::template::{Mechanism, Template};

/// What wraps: AES key wrap of RFC 3394.
pub const WRAP: CK_MECHANISM_TYPE = CKM_AES_KEY_WRAP;

/// The least that a key of the attacker's has, without its value.
pub fn plain() -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
}

/// A key with exactly these attributes, all of them said.
pub fn exactly(on: impl Fn(Flag) -> bool) -> Template {
    // CKA_TRUSTED is left out where it is off, because many tokens refuse the user to speak of it at all.
    Flag::ALL
        .iter()
        .filter(|flag| **flag != Flag::Trusted || on(**flag))
        .fold(plain(), |template, flag| template.bool(flag.number(), on(*flag)))
}

/// The session, and what keys are unwrapped with and from.
pub struct Lab<'s, 'b> {
    /// Where keys are made.
    pub session: &'s Session<'b>,
    /// A key that unwraps, and what it unwraps.
    parcel: Option<(CK_OBJECT_HANDLE, Vec<u8>)>,
}

impl<'s, 'b> Lab<'s, 'b> {
    /// Sees whether keys can be unwrapped.
    pub fn new(session: &'s Session<'b>) -> Self {
        Self { session, parcel: parcel(session) }
    }

    /// Makes a key in one of the ways.
    pub fn make(&self, origin: Origin, template: Template) -> Option<CK_OBJECT_HANDLE> {
        let (rv, key) = match origin {
            Origin::Generate => {
                self.session.bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE).ok()?;
                let template = template.ulong(CKA_VALUE_LEN, 32);
                self.session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &template)
            }
            Origin::Create => self.session.try_create(&template.bytes(CKA_VALUE, &[0x3c; 32])),
            Origin::Unwrap => {
                let (key, blob) = self.parcel.as_ref()?;
                self.session.unwrap(&Mechanism::plain(WRAP), *key, blob, &template)
            }
        };
        rv.was(CKR_OK).then_some(key)
    }

    fn is_on(&self, key: CK_OBJECT_HANDLE, flag: Flag) -> bool {
        self.session
            .attribute(key, flag.number())
            .is_ok_and(|value| value.first().is_some_and(|byte| *byte != 0))
    }

    fn drop(&self, key: CK_OBJECT_HANDLE) {
        let _destroyed = self.session.destroy(key);
    }

    /// Whether a key is made with the first on and the second off, and is so.
    fn bears(&self, origin: Origin, on: &[Flag], off: &[Flag]) -> bool {
        let said = |template: Template, flags: &[Flag], value: bool| {
            flags.iter().fold(template, |template, flag| template.bool(flag.number(), value))
        };
        let template = said(said(plain(), on, true), off, false);
        let Some(key) = self.make(origin, template) else { return false };
        let is_so =
            on.iter().all(|flag| self.is_on(key, *flag)) && !off.iter().any(|flag| self.is_on(key, *flag));
        self.drop(key);
        is_so
    }

    fn birth(&self, origin: Origin) -> Birth {
        let Some(key) = self.make(origin, plain()) else { return Birth::default() };
        let usual: Vec<Flag> = Flag::ALL.iter().copied().filter(|flag| self.is_on(key, *flag)).collect();
        self.drop(key);
        let mut birth = Birth { offered: true, ..Birth::default() };
        for flag in Flag::ALL.iter().copied() {
            if !self.bears(origin, &[flag], &[]) {
                birth.always_off.push(flag);
            }
            if usual.contains(&flag) && !self.bears(origin, &[], &[flag]) {
                birth.always_on.push(flag);
            }
        }
        for (one, other) in pairs().filter(|pair| !birth.mentions(*pair)).collect::<Vec<_>>() {
            if !self.bears(origin, &[one, other], &[]) {
                birth.conflicts.push((one, other));
            }
        }
        birth.ties = self.ties(origin, &usual);
        birth
    }

    /// What is on because another is.
    fn ties(&self, origin: Origin, usual: &[Flag]) -> Vec<(Flag, Flag)> {
        let mut ties = Vec::new();
        for flag in Flag::ALL.iter().copied().filter(|flag| !usual.contains(flag)) {
            let Some(key) = self.make(origin, plain().bool(flag.number(), true)) else { continue };
            let others = Flag::ALL.iter().copied().filter(|other| *other != flag && !usual.contains(other));
            ties.extend(others.filter(|other| self.is_on(key, *other)).map(|other| (flag, other)));
            self.drop(key);
        }
        ties
    }

    /// The key that a change gives.
    fn change(
        &self,
        change: Change,
        key: CK_OBJECT_HANDLE,
        flag: Flag,
        to: Turn,
    ) -> Option<CK_OBJECT_HANDLE> {
        let template = Template::new().bool(flag.number(), to == Turn::On);
        let (rv, changed) = match change {
            Change::Set => (self.session.set(key, &template), key),
            Change::Copy => self.session.copy(key, &template),
        };
        let is_so = rv.was(CKR_OK) && self.is_on(changed, flag) == (to == Turn::On);
        is_so.then_some(changed)
    }

    /// Whether a key with these on takes this turn.
    fn takes(&self, change: Change, on: &[Flag], flag: Flag, to: Turn) -> Option<bool> {
        let key = [Origin::Generate, Origin::Create]
            .into_iter()
            .find_map(|origin| self.make(origin, exactly(|flag| on.contains(&flag))))?;
        let changed = self.change(change, key, flag, to);
        if let Some(other) = changed.filter(|changed| *changed != key) {
            self.drop(other);
        }
        self.drop(key);
        Some(changed.is_some())
    }

    fn alteration(&self, change: Change) -> Alteration {
        let mut alteration = Alteration::default();
        for flag in Flag::ALL.iter().copied() {
            if self.takes(change, &[flag], flag, Turn::Off) != Some(true) {
                alteration.sticky_on.push(flag);
            }
            if self.takes(change, &[], flag, Turn::On) != Some(true) {
                alteration.sticky_off.push(flag);
            }
        }
        for (one, other) in pairs() {
            let both_turn = !alteration.sticky_off.contains(&one) && !alteration.sticky_off.contains(&other);
            let refused =
                |there: Flag, turned: Flag| self.takes(change, &[there], turned, Turn::On) == Some(false);
            if both_turn && refused(one, other) && refused(other, one) {
                alteration.conflicts.push((one, other));
            }
        }
        alteration
    }
}

/// Which way an attribute is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    On,
    Off,
}

impl Birth {
    fn mentions(&self, (one, other): (Flag, Flag)) -> bool {
        self.always_off.contains(&one) || self.always_off.contains(&other)
    }
}

fn pairs() -> impl Iterator<Item = (Flag, Flag)> {
    Flag::ALL
        .iter()
        .enumerate()
        .flat_map(|(place, one)| Flag::ALL.iter().skip(place + 1).map(move |other| (*one, *other)))
}

/// A key that unwraps, and a key that it wrapped.
fn parcel(session: &Session<'_>) -> Option<(CK_OBJECT_HANDLE, Vec<u8>)> {
    session.bench.offers(WRAP, CKF_WRAP | CKF_UNWRAP).ok()?;
    let generate = |template: Template| {
        let template = template.ulong(CKA_VALUE_LEN, 32);
        let (rv, key) = session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &template);
        rv.was(CKR_OK).then_some(key)
    };
    let wrapper = generate(plain().usages(&[CKA_WRAP, CKA_UNWRAP]))?;
    let key = generate(plain().usages(&[CKA_EXTRACTABLE]))?;
    let (rv, blob) = session.wrap(&Mechanism::plain(WRAP), wrapper, key);
    rv.was(CKR_OK).then_some((wrapper, blob))
}

/// Learns the model of a module.
///
/// # Errors
/// `NotOffered`, if it makes no AES keys at all.
pub fn learn(session: &Session<'_>) -> Result<Model, Stop> {
    let lab = Lab::new(session);
    let [generate, create, unwrap] =
        [Origin::Generate, Origin::Create, Origin::Unwrap].map(|origin| lab.birth(origin));
    if !generate.offered && !create.offered {
        return Err(Stop::NotOffered);
    }
    let wrapped = |wrapper: &[Flag], key: &[Flag]| -> Option<bool> {
        let make = |on: &[Flag]| {
            [Origin::Generate, Origin::Create]
                .into_iter()
                .find_map(|origin| lab.make(origin, exactly(|flag| on.contains(&flag))))
        };
        let (wrapper, key) = (make(wrapper)?, make(key)?);
        let (rv, _) = session.wrap(&Mechanism::plain(WRAP), wrapper, key);
        lab.drop(wrapper);
        lab.drop(key);
        Some(rv.was(CKR_OK))
    };
    let (sensitive, extractable) = (Flag::Sensitive, Flag::Extractable);
    let offers_wrap = session.bench.offers(WRAP, CKF_WRAP).is_ok();
    let through = |key: &[Flag]| offers_wrap && wrapped(&[Flag::Wrap], key) == Some(true);
    Ok(Model {
        set: lab.alteration(Change::Set),
        copy: lab.alteration(Change::Copy),
        wraps: through(&[sensitive, extractable]),
        heeds_trust: !through(&[sensitive, extractable, Flag::WrapWithTrusted]),
        heeds_extractable: !through(&[sensitive]),
        hides_sensitive: !shows(&lab, &[sensitive, extractable]) && !shows(&lab, &[sensitive]),
        hides_unextractable: !shows(&lab, &[]),
        crossing: Crossing {
            decrypt_opens: replay::block(session, CKF_DECRYPT).is_some(),
            encrypt_seals: replay::block(session, CKF_ENCRYPT).is_some(),
        },
        generate,
        create,
        unwrap,
    })
}

/// Whether the value of a key with these on is shown.
fn shows(lab: &Lab<'_, '_>, on: &[Flag]) -> bool {
    let key = [Origin::Generate, Origin::Create]
        .into_iter()
        .find_map(|origin| lab.make(origin, exactly(|flag| on.contains(&flag))));
    key.is_some_and(|key| {
        let value = lab.session.attribute(key, CKA_VALUE);
        lab.drop(key);
        value.is_ok_and(|value| !value.is_empty())
    })
}
