//! Calls to keys that several nodes share: which calls go as mandates, and what a mandate says.

use std::{
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use pkcs11_sys::*;
use strongroom_identity::MandateKey;
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated},
    mechanism::{Mechanism, Params},
    message,
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, Template, Value},
    wire::{CallId, decode_body},
};

use super::{
    DEADLINES, RW, chosen, secret_key,
    vault::{Event, InProcess, ScriptedVault},
};
use crate::{
    ffi::pointers::Output,
    keys,
    mandate::Mandates,
    module::{Module, Way},
    object,
    rv::Error,
    session::{self, Context},
    sign,
};

const CLUSTER: [u8; 16] = [9; 16];

/// A module whose client has a key for mandates, if `keyed`, and a session.
struct Desk {
    vault: Arc<ScriptedVault>,
    module: Module,
    session: CK_SESSION_HANDLE,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mandate.key"), MandateKey::generate().unwrap().as_bytes()).unwrap();
        Self::with(folder)
    }

    fn with(folder: tempfile::TempDir) -> Self {
        let vault = Arc::new(ScriptedVault::default());
        vault.joins(CLUSTER);
        let way = Way::new("in process", Box::new(InProcess(vault.clone())) as _);
        let way = Way { mandates: Mandates::signed_by(Some(folder.path().join("mandate.key"))), ..way };
        let module = Module::over([way], DEADLINES).unwrap();
        let session = session::open(&module, 0, RW).unwrap();
        vault.forget_calls();
        Self { vault, module, session, folder }
    }

    fn context(&self) -> Context<'_> {
        self.module.session(self.session).unwrap()
    }

    fn shared_key(&self) -> CK_OBJECT_HANDLE {
        let template = secret_key(CKK_GENERIC_SECRET, &[7; 32]);
        let template = template.with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(2));
        let key = object::create(&self.context(), template).unwrap();
        self.vault.forget_calls();
        key
    }

    fn sign(&self, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Error> {
        let context = self.context();
        sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key)?;
        let (mut buffer, mut length) = ([0; 100], 0);
        sign::sign(&context, &b"buy"[..].into(), &Output::over(&mut buffer, &mut length))?;
        Ok(buffer[..length as usize].to_vec())
    }

    /// What a mandate says, if its signature is the client's.
    fn read(&self, mandated: &Mandated) -> Mandate {
        let mandate: Mandate = decode_body(&mandated.text).unwrap();
        let key = MandateKey::read(&self.folder.path().join("mandate.key")).unwrap().public();
        assert_eq!(mandate.key, key);
        let message = Mandate::to_sign(&mandated.text);
        UnparsedPublicKey::new(&ED25519, key).verify(&message, &mandated.signature).unwrap();
        mandate
    }
}

#[test]
fn a_shared_key_signs_by_a_mandate_for_the_ordinary_call() {
    let desk = Desk::new();
    let key = desk.shared_key();
    desk.sign(key).unwrap();
    desk.sign(key).unwrap();
    assert_eq!(desk.vault.calls(), [CallId::Hello, CallId::SignShared, CallId::SignShared], "it asks once");
    let mandates = desk.vault.mandates();
    let [first, second] = &mandates[..] else { panic!() };
    let (first, second) = (desk.read(first), desk.read(second));
    assert_eq!((first.cluster, first.partition.as_str()), (CLUSTER, "test"));
    assert_eq!(decode_body::<message::Sign>(&first.body).unwrap().input, b"buy");
    assert_ne!(first.nonce, second.nonce);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 50..now + Mandate::LONGEST).contains(&first.expires));
}

#[test]
fn a_call_that_is_sent_again_is_the_same_mandate() {
    let desk = Desk::new();
    let key = desk.shared_key();
    desk.sign(key).unwrap();
    desk.vault.will([Event::AnswerLost(crate::hsm::Link::Broken("test".into()))]);
    desk.sign(key).unwrap();
    assert_eq!(desk.vault.mandates().len(), 2, "the vault acted once on the second");
}

#[test]
fn pairs_are_made_and_destroyed_by_mandates() {
    let desk = Desk::new();
    let pair = Mechanism::EcKeyPairGen;
    let generate = |private: Template| {
        let chosen = chosen(pair, Params::None).unwrap();
        keys::generate_pair(&desk.context(), chosen, Template::new(), private)
    };
    let shares = Template::new()
        .with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(2))
        .with(CKA_STRONGROOM_PARTIES, Value::Ulong(3));
    let (_, private) = generate(shares).unwrap();
    object::destroy(&desk.context(), private).unwrap();
    // One alone is for the vault to refuse, and goes the same way.
    generate(Template::new().with(CKA_STRONGROOM_PARTIES, Value::Ulong(3))).unwrap();
    let calls = [CallId::Hello, CallId::GenerateShared, CallId::DestroyShared, CallId::GenerateShared];
    assert_eq!(desk.vault.calls(), calls);
}

#[test]
fn without_a_key_or_a_cluster_nothing_is_sent() {
    let desk = Desk::with(tempfile::tempdir().unwrap());
    let key = desk.shared_key();
    assert_eq!(desk.sign(key), Err(Error::FunctionFailed));
    assert_eq!(desk.vault.calls(), []);
    // The administrator made one meanwhile.
    let file = desk.folder.path().join("mandate.key");
    fs::write(file, MandateKey::generate().unwrap().as_bytes()).unwrap();
    desk.sign(key).unwrap();

    let (vault, module, session) = super::opened();
    let context = module.session(session).unwrap();
    let template = secret_key(CKK_GENERIC_SECRET, &[7; 32]).with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(2));
    let key = object::create(&context, template).unwrap();
    assert_eq!(object::destroy(&context, key), Err(Error::FunctionFailed), "no file is named");
    assert_eq!(vault.mandates().len(), 0);
}

#[test]
fn a_refused_mandate_makes_the_next_one_look_again() {
    let desk = Desk::new();
    let key = desk.shared_key();
    desk.sign(key).unwrap();
    desk.vault.joins([1; 16]);
    desk.vault.will([Event::Fault(FaultCode::Forbidden)]);
    assert_eq!(desk.sign(key).unwrap_err().rv(), CKR_FUNCTION_REJECTED);
    desk.sign(key).unwrap();
    assert_eq!(desk.read(desk.vault.mandates().last().unwrap()).cluster, [1; 16]);
}
