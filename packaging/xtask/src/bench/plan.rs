//! What is measured: algorithms, kinds of key, targets.

/// What is done with a 32-byte input, once per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `CKM_ECDSA` on P-256.
    P256,
    /// `CKM_ECDSA` on secp256k1.
    Secp256k1,
    /// `CKM_EDDSA` on Ed25519.
    Ed25519,
    /// `CKM_SHA256_RSA_PKCS` with 2048 bits.
    Rsa2048,
    /// `CKM_SHA256_HMAC`.
    Hmac,
    /// BIP340 on secp256k1; only with keys that nodes share, for nobody else has it.
    Bip340,
}

impl Algorithm {
    /// Every algorithm that all targets have, in the order of the report.
    pub const ALL: &[Self] = &[Self::P256, Self::Secp256k1, Self::Ed25519, Self::Rsa2048, Self::Hmac];

    /// Its name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Secp256k1 => "secp256k1",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa2048",
            Self::Hmac => "hmac",
            Self::Bip340 => "bip340",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().chain([Self::Bip340]).find(|each| each.name() == name)
    }
}

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keys {
    /// `CKA_TOKEN` true.
    Token,
    /// `CKA_TOKEN` false.
    Session,
    /// On the token, shared by several nodes, and made before.
    Shared,
}

impl Keys {
    /// Those that every target can make.
    pub const ALL: &[Self] = &[Self::Token, Self::Session];

    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Shared => "shared",
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Strongroom, front and vault in two processes.
    Process,
    /// Strongroom, the vault inside the front.
    Thread,
    /// SoftHSM2, in the client's process.
    SoftHsm,
    /// Mutual TLS and a signature, nothing else.
    Floor,
}

impl Target {
    /// Everybody, in the order of the report.
    pub const ALL: &[Self] = &[Self::Process, Self::Thread, Self::SoftHsm, Self::Floor];

    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Thread => "thread",
            Self::SoftHsm => "softhsm",
            Self::Floor => "floor",
        }
    }

    /// What it is, for a reader.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Process => "Strongroom, two processes",
            Self::Thread => "Strongroom, one process",
            Self::SoftHsm => "SoftHSM2 in process",
            Self::Floor => "floor: mTLS and signature",
        }
    }
}

/// One line of the report, but for who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// Which kind of key.
    pub keys: Keys,
    /// How many threads, each with a session of its own.
    pub threads: usize,
}
