//! What a module allows with the attributes of its AES keys: the words of the Tookan language (always on, always off,
//! sticky, in conflict, tied), for each way in which a key comes to be or changes.

use std::fmt;

use cryptoki_sys::*;
use serde::Serialize;

macro_rules! flags {
    ($( $flag:ident $kind:ident; )*) => {
        /// An attribute that says what a key may do or what may be done to it (4.10).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Flag { $( #[doc = concat!("`", stringify!($kind), "`.")] $flag, )* }

        impl Flag {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$flag, )* ];

            /// Its number in the standard.
            pub const fn number(self) -> CK_ATTRIBUTE_TYPE {
                match self { $( Self::$flag => $kind, )* }
            }

            /// Its name in the standard.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$flag => stringify!($kind), )* }
            }
        }
    };
}

flags! {
    Sensitive CKA_SENSITIVE;
    Extractable CKA_EXTRACTABLE;
    Wrap CKA_WRAP;
    Unwrap CKA_UNWRAP;
    Encrypt CKA_ENCRYPT;
    Decrypt CKA_DECRYPT;
    WrapWithTrusted CKA_WRAP_WITH_TRUSTED;
    Trusted CKA_TRUSTED;
}

/// The flags that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u16);

impl Flags {
    /// These.
    pub fn of(flags: &[Flag]) -> Self {
        flags.iter().fold(Self::default(), |all, flag| all.with(*flag))
    }

    /// Every set of flags.
    pub fn every() -> impl Iterator<Item = Self> {
        (0..1 << Flag::ALL.len()).map(Self)
    }

    /// Whether one is on.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 >> flag as u16 & 1 == 1
    }

    /// With one turned on.
    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | 1 << flag as u16)
    }

    /// With one turned off.
    pub const fn without(self, flag: Flag) -> Self {
        Self(self.0 & !(1 << flag as u16))
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Flag::ALL.iter().filter(|flag| self.has(**flag)).map(|flag| flag.name()).collect();
        if names.is_empty() { f.write_str("no attribute") } else { f.write_str(&names.join(", ")) }
    }
}

/// How a key comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// `C_GenerateKey`.
    Generate,
    /// `C_CreateObject`.
    Create,
    /// `C_UnwrapKey`.
    Unwrap,
}

/// How a key's attributes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Change {
    /// `C_SetAttributeValue`.
    Set,
    /// `C_CopyObject`.
    Copy,
}

/// What a new key may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Birth {
    /// Whether keys come to be in this way at all.
    pub offered: bool,
    /// Attributes that no template turns off.
    pub always_on: Vec<Flag>,
    /// Attributes that no template turns on.
    pub always_off: Vec<Flag>,
    /// Attributes that are not on together, though each can be.
    pub conflicts: Vec<(Flag, Flag)>,
    /// Attributes that turn another one on, if the template does not speak of it.
    pub ties: Vec<(Flag, Flag)>,
}

/// What may become of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Alteration {
    /// Attributes that once on stay on.
    pub sticky_on: Vec<Flag>,
    /// Attributes that once off stay off.
    pub sticky_off: Vec<Flag>,
    /// Attributes that are not on together after a change, though each can be turned on.
    pub conflicts: Vec<(Flag, Flag)>,
}

/// How a wrapped key is opened by the same key's other uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Crossing {
    /// `C_Decrypt` undoes `C_WrapKey`.
    pub decrypt_opens: bool,
    /// `C_Encrypt` makes what `C_UnwrapKey` takes.
    pub encrypt_seals: bool,
}

/// What a module allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Model {
    /// `C_GenerateKey`.
    pub generate: Birth,
    /// `C_CreateObject`.
    pub create: Birth,
    /// `C_UnwrapKey`.
    pub unwrap: Birth,
    /// `C_SetAttributeValue`.
    pub set: Alteration,
    /// `C_CopyObject`.
    pub copy: Alteration,
    /// Whether keys are wrapped.
    pub wraps: bool,
    /// Whether a key with `CKA_WRAP_WITH_TRUSTED` is wrapped by a trusted key only.
    pub heeds_trust: bool,
    /// Whether a key without `CKA_EXTRACTABLE` is not wrapped.
    pub heeds_extractable: bool,
    /// Whether the value of a sensitive key is not shown.
    pub hides_sensitive: bool,
    /// Whether the value of an unextractable key is not shown.
    pub hides_unextractable: bool,
    /// What `CKA_DECRYPT` and `CKA_ENCRYPT` do for a key that wraps.
    pub crossing: Crossing,
}

fn in_conflict(pairs: &[(Flag, Flag)], flags: Flags) -> bool {
    pairs.iter().any(|(one, other)| flags.has(*one) && flags.has(*other))
}

impl Birth {
    fn allows(&self, flags: Flags) -> bool {
        self.offered
            && self.always_on.iter().all(|flag| flags.has(*flag))
            && !self.always_off.iter().any(|flag| flags.has(*flag))
            && !in_conflict(&self.conflicts, flags)
    }
}

impl Alteration {
    fn allows(&self, now: Flags, flag: Flag) -> Option<Flags> {
        let (sticky, after) = match now.has(flag) {
            true => (&self.sticky_on, now.without(flag)),
            false => (&self.sticky_off, now.with(flag)),
        };
        let allowed = !sticky.contains(&flag) && (now.has(flag) || !in_conflict(&self.conflicts, after));
        allowed.then_some(after)
    }
}

impl Model {
    /// What a way of making keys allows.
    pub const fn birth(&self, origin: Origin) -> &Birth {
        match origin {
            Origin::Generate => &self.generate,
            Origin::Create => &self.create,
            Origin::Unwrap => &self.unwrap,
        }
    }

    /// What a way of changing keys allows.
    pub const fn alteration(&self, change: Change) -> &Alteration {
        match change {
            Change::Set => &self.set,
            Change::Copy => &self.copy,
        }
    }

    /// Whether `CKA_VALUE` of such a key is shown.
    pub fn shows(&self, flags: Flags) -> bool {
        let sensitive = flags.has(Flag::Sensitive) && self.hides_sensitive;
        !sensitive && (flags.has(Flag::Extractable) || !self.hides_unextractable)
    }

    /// Whether a key comes to be with just these.
    pub fn bears(&self, origin: Origin, flags: Flags) -> bool {
        self.birth(origin).allows(flags)
    }

    /// What a key has after one of its attributes is turned over, if that is allowed.
    pub fn turned(&self, change: Change, now: Flags, flag: Flag) -> Option<Flags> {
        self.alteration(change).allows(now, flag)
    }
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, flags: &[Flag]) -> fmt::Result {
    let names: Vec<&str> = flags.iter().map(|flag| flag.name()).collect();
    if names.is_empty() { Ok(()) } else { writeln!(f, "  {name}: {}", names.join(", ")) }
}

fn pairs(f: &mut fmt::Formatter<'_>, name: &str, pairs: &[(Flag, Flag)]) -> fmt::Result {
    let names: Vec<String> =
        pairs.iter().map(|(one, other)| format!("{} and {}", one.name(), other.name())).collect();
    if names.is_empty() { Ok(()) } else { writeln!(f, "  {name}: {}", names.join(", ")) }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let births = [
            ("C_GenerateKey", &self.generate),
            ("C_CreateObject", &self.create),
            ("C_UnwrapKey", &self.unwrap),
        ];
        for (name, birth) in births {
            writeln!(f, "{name}: AES keys {}", if birth.offered { "are made" } else { "are not made" })?;
            list(f, "always on", &birth.always_on)?;
            list(f, "always off", &birth.always_off)?;
            pairs(f, "in conflict", &birth.conflicts)?;
            pairs(f, "tied", &birth.ties)?;
        }
        for (name, alteration) in [("C_SetAttributeValue", &self.set), ("C_CopyObject", &self.copy)] {
            writeln!(f, "{name}:")?;
            list(f, "sticky on", &alteration.sticky_on)?;
            list(f, "sticky off", &alteration.sticky_off)?;
            pairs(f, "in conflict", &alteration.conflicts)?;
        }
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        writeln!(f, "keys are wrapped: {}", yes(self.wraps))?;
        writeln!(f, "CKA_WRAP_WITH_TRUSTED is heeded: {}", yes(self.heeds_trust))?;
        writeln!(f, "CKA_EXTRACTABLE is heeded by C_WrapKey: {}", yes(self.heeds_extractable))?;
        writeln!(f, "CKA_VALUE of a sensitive key is hidden: {}", yes(self.hides_sensitive))?;
        writeln!(f, "CKA_VALUE of an unextractable key is hidden: {}", yes(self.hides_unextractable))?;
        writeln!(f, "C_Decrypt opens a wrapped key: {}", yes(self.crossing.decrypt_opens))?;
        writeln!(f, "C_Encrypt makes a wrapped key: {}", yes(self.crossing.encrypt_seals))
    }
}
