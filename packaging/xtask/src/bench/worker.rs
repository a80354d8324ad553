//! A client process with one PKCS#11 module, whichever it is.

use std::collections::BTreeMap;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
        vendor_defined::VendorDefinedMechanism,
    },
    object::{Attribute, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use strongroom_shared::mechanism::CKM_STRONGROOM_BIP340;
use xtask::{Outcome, token::PIN};

use crate::{
    load::{self, Subject},
    plan::{Algorithm, Cell, Keys},
    threshold,
};

/// OBJECT IDENTIFIER 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// OBJECT IDENTIFIER 1.3.132.0.10.
const SECP256K1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
/// PrintableString "edwards25519".
const ED25519: &[u8] = b"\x13\x0cedwards25519";

/// Loads the module, logs in, and answers the driver.
///
/// # Errors
/// The module refuses something.
pub fn run(module: &str) -> Outcome {
    let module = Pkcs11::new(module)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let slot = *module.get_slots_with_initialized_token()?.first().ok_or("no initialised token")?;
    let first = module.open_rw_session(slot)?;
    first.login(UserType::User, Some(&AuthPin::from(PIN)))?;
    load::answer(Worker { module, slot, first, lanes: Vec::new(), keys: BTreeMap::new() })
}

struct Worker {
    module: Pkcs11,
    slot: Slot,
    /// Stays open, so that nobody is logged out, and owns the session keys.
    first: Session,
    lanes: Vec<Lane>,
    keys: BTreeMap<(Algorithm, Keys), ObjectHandle>,
}

/// A thread's session, and what it does next.
struct Lane {
    session: Session,
    key: ObjectHandle,
    algorithm: Algorithm,
}

impl Subject for Worker {
    type Lane = Lane;

    fn prepare(&mut self, cell: Cell) -> Outcome<&mut [Lane]> {
        let key = match self.keys.get(&(cell.algorithm, cell.keys)) {
            Some(key) => *key,
            None if cell.keys == Keys::Shared => find(&self.first, cell.algorithm)?,
            None => generate(&self.first, cell.algorithm, cell.keys)?,
        };
        self.keys.insert((cell.algorithm, cell.keys), key);
        while self.lanes.len() < cell.threads {
            let session = self.module.open_ro_session(self.slot)?;
            self.lanes.push(Lane { session, key, algorithm: cell.algorithm });
        }
        for lane in &mut self.lanes {
            (lane.key, lane.algorithm) = (key, cell.algorithm);
        }
        Ok(&mut self.lanes)
    }

    fn operate(lane: &mut Lane, input: &[u8; 32]) -> Outcome {
        lane.session.sign(&mechanism(lane.algorithm)?, lane.key, input)?;
        Ok(())
    }
}

fn mechanism(algorithm: Algorithm) -> Outcome<Mechanism<'static>> {
    Ok(match algorithm {
        Algorithm::P256 | Algorithm::Secp256k1 => Mechanism::Ecdsa,
        Algorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
        Algorithm::Rsa2048 => Mechanism::Sha256RsaPkcs,
        Algorithm::Hmac => Mechanism::Sha256Hmac,
        Algorithm::Bip340 => {
            let number = MechanismType::new_vendor_defined(CKM_STRONGROOM_BIP340)?;
            Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(number, None))
        }
    })
}

/// The private key that nodes share: made before, for no client can ask for one in the standard's words.
fn find(session: &Session, algorithm: Algorithm) -> Outcome<ObjectHandle> {
    let label = threshold::label(algorithm).into_bytes();
    let found = session.find_objects(&[Attribute::Label(label), Attribute::Sign(true)])?;
    Ok(*found.first().ok_or("no shared key of this kind")?)
}

fn generate(session: &Session, algorithm: Algorithm, keys: Keys) -> Outcome<ObjectHandle> {
    let common = [
        Attribute::Token(keys == Keys::Token),
        Attribute::Label(format!("bench {} {}", algorithm.name(), keys.name()).into_bytes()),
    ];
    let with = |more: &[Attribute]| [&common[..], more].concat();
    let public = |more: Attribute| with(&[Attribute::Private(false), Attribute::Verify(true), more]);
    let private = with(&[Attribute::Private(true), Attribute::Sensitive(true), Attribute::Sign(true)]);
    let (mechanism, public) = match algorithm {
        Algorithm::P256 => (Mechanism::EccKeyPairGen, public(Attribute::EcParams(P256.to_vec()))),
        Algorithm::Secp256k1 => (Mechanism::EccKeyPairGen, public(Attribute::EcParams(SECP256K1.to_vec()))),
        Algorithm::Ed25519 => {
            (Mechanism::EccEdwardsKeyPairGen, public(Attribute::EcParams(ED25519.to_vec())))
        }
        Algorithm::Rsa2048 => (Mechanism::RsaPkcsKeyPairGen, public(Attribute::ModulusBits(2048.into()))),
        Algorithm::Bip340 => return Err("BIP340 is measured with shared keys".into()),
        Algorithm::Hmac => {
            let secret = [&private[..], &[Attribute::ValueLen(32.into()), Attribute::Verify(true)]].concat();
            return Ok(session.generate_key(&Mechanism::GenericSecretKeyGen, &secret)?);
        }
    };
    Ok(session.generate_key_pair(&mechanism, &public, &private)?.1)
}
