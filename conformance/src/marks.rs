//! What a check is marked with: how bad a failure is, what it writes, and which group of abuse cases it belongs to.

use serde::{Deserialize, Serialize};

macro_rules! marks {
    (
        $( #[$meta:meta] )* $name:ident:
        $( $variant:ident $word:literal $means:literal; )*
    ) => {
        $( #[$meta] )*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $( #[doc = $means] $variant, )* }

        impl $name {
            /// All of them, in order.
            #[allow(dead_code, reason = "one macro makes the three")]
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The word for it on the command line and in reports.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// What it means, in one sentence.
            #[allow(dead_code, reason = "one macro makes the three")]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$variant => $means, )* }
            }
        }
    };
}

marks! {
    /// How bad it is when a check fails. Of two severities the graver is the greater.
    Severity:
    Informational "informational" "A difference that harms nobody and that a reader may want to know.";
    Low "low" "A wrong return code or a missing courtesy: an application misreads why it was refused.";
    Medium "medium" "The standard is broken in a way that an application works around or loses data by.";
    High "high" "The process crashes or hangs, or what must be refused is accepted.";
    Critical "critical" "A secret leaves the token, or a forgery is taken for a signature.";
}

marks! {
    /// What a check writes; each does what the ones before it do. `--read-only` makes the first two only.
    Effect:
    Nothing "nothing" "Opens sessions and logs in, and writes nothing.";
    SessionObjects "session-objects" "Makes objects that end with its session.";
    TokenObjects "token-objects" "Makes objects on the token, and destroys them.";
    Pins "pins" "Sets a PIN to itself, or to another and back, or costs one try of a PIN.";
    Lockout "lockout" "Locks a PIN or the token on purpose; made with `--allow-lockout` only.";
}

marks! {
    /// The groups of attack and abuse cases.
    Tag:
    KeySeparation "key-separation" "A: keys that wrap, unwrap, encrypt and decrypt one another.";
    Derivation "derivation" "B: keys made from keys.";
    Oracles "oracles" "C: refusals that tell a secret bit by bit.";
    Randomness "randomness" "D: weak keys, nonces and random numbers.";
    Authentication "authentication" "E: PINs, logins and lockout.";
    Sessions "sessions" "F: sessions, processes and threads.";
    Operations "operations" "G: the state machine of operations.";
    Arguments "arguments" "H: nulls, lying lengths and malformed memory.";
    Network "network" "I: a module whose token is behind a network.";
}

impl Tag {
    /// `A` to `I`.
    pub fn letter(self) -> &'static str {
        self.meaning().get(..1).unwrap_or_default()
    }
}

impl Effect {
    /// Whether a token that must not be written to allows it.
    pub fn is_read_only(self) -> bool {
        self <= Self::SessionObjects
    }
}
