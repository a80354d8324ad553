//! Calls to keys that several nodes share: which calls go as mandates, and what a mandate says.

use std::{
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use pkcs11_sys::*;
use strongroom_identity::{MandateKey, Nodes};
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated, Seen},
    mechanism::{Mechanism, Params},
    message,
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, ObjectId, Template, Value},
    shares::{Certificate, Claim, Signed},
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
        Self::knowing(folder, None)
    }

    /// Of a client that knows these nodes.
    fn knowing(folder: tempfile::TempDir, nodes: Option<&str>) -> Self {
        let nodes = nodes.map(|text| {
            let file = folder.path().join("cluster.nodes");
            fs::write(&file, text).unwrap();
            file
        });
        let vault = Arc::new(ScriptedVault::default());
        vault.joins(CLUSTER);
        let way = Way::new("in process", Box::new(InProcess(vault.clone())) as _);
        let way = Way { mandates: Mandates::of(Some(folder.path().join("mandate.key")), nodes), ..way };
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

/// A key of this label and id, without a public key.
fn seen(label: &[u8], id: &[u8]) -> Seen {
    Seen { public: sha256(b""), label: label.to_vec(), id: id.to_vec() }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

#[test]
fn a_shared_key_signs_by_a_mandate_for_the_ordinary_call() {
    let desk = Desk::new();
    let key = desk.shared_key();
    desk.sign(key).unwrap();
    desk.sign(key).unwrap();
    let calls = [CallId::ReadAttributes, CallId::Hello, CallId::SignShared, CallId::SignShared];
    assert_eq!(desk.vault.calls(), calls, "it asks once");
    let mandates = desk.vault.mandates();
    let [first, second] = &mandates[..] else { panic!() };
    let (first, second) = (desk.read(first), desk.read(second));
    assert_eq!((first.cluster, first.partition.as_str()), (CLUSTER, "test"));
    assert_eq!(decode_body::<message::Sign>(&first.body).unwrap().input, b"buy");
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(first.seen, Some(seen(b"", b"")));
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
    let calls = [
        CallId::Hello,
        CallId::GenerateShared,
        CallId::ReadAttributes,
        CallId::DestroyShared,
        CallId::GenerateShared,
    ];
    assert_eq!(desk.vault.calls(), calls);
}

#[test]
fn without_a_key_or_a_cluster_nothing_is_sent() {
    let desk = Desk::with(tempfile::tempdir().unwrap());
    let key = desk.shared_key();
    assert_eq!(desk.sign(key), Err(Error::FunctionFailed));
    assert_eq!(desk.vault.calls(), [CallId::ReadAttributes]);
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

#[test]
fn a_mandate_says_what_the_application_was_shown_and_that_does_not_change() {
    let desk = Desk::new();
    let template = secret_key(CKK_GENERIC_SECRET, &[7; 32])
        .with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(2))
        .with(CKA_LABEL, Value::bytes(b"hot"))
        .with(CKA_ID, Value::bytes([1]));
    object::create(&desk.context(), template).unwrap();
    let find = |label: &[u8]| {
        let template = Template::new().with(CKA_LABEL, Value::bytes(label));
        object::find_init(&desk.context(), template)?;
        let found = object::find(&desk.context(), 1);
        object::find_final(&desk.context()).unwrap();
        Ok(found?[0])
    };
    let key = find(b"hot").unwrap();
    // What it was found by counts, whatever the server says of it later.
    desk.vault.change(CKA_LABEL, Value::bytes(b"cold"));
    desk.sign(key).unwrap();
    let mandate = desk.read(desk.vault.mandates().last().unwrap());
    assert_eq!(mandate.seen, Some(seen(b"hot", &[1])));
    let contradiction = |error: Error| assert_eq!(error.rv(), CKR_DEVICE_ERROR, "{error:?}");
    contradiction(find(b"cold").unwrap_err());
    contradiction(object::read(&desk.context(), key, vec![CKA_LABEL]).unwrap_err());
    object::read(&desk.context(), key, vec![CKA_ID, CKA_CLASS]).unwrap();
    desk.vault.change(CKA_ID, Value::bytes([2]));
    contradiction(object::read(&desk.context(), key, vec![CKA_CLASS, CKA_ID]).unwrap_err());
}

/// The public key that the nodes make: it ends with a point of 32 bytes.
const KEY: [u8; 44] = [6; 44];

fn node(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(node: &Ed25519KeyPair) -> [u8; 32] {
    node.public_key().as_ref().try_into().unwrap()
}

/// What three nodes say of the key that the last mandate asked for.
fn certificate(mandate: &[u8], seeds: [u8; 3]) -> Vec<u8> {
    let claim = Claim {
        cluster: CLUSTER,
        partition: "test".into(),
        mandate: sha256(mandate),
        public: ObjectId([1; 16]),
        seats: seeds.map(|seed| public(&node(seed))).to_vec(),
        ready: Vec::new(),
        private: ObjectId([2; 16]),
        key: KEY.to_vec(),
        object: None,
    };
    let claim = minicbor::to_vec(claim).unwrap();
    let sign = |seed| Signed(node(seed).sign(&Claim::to_sign(&claim)).as_ref().try_into().unwrap());
    let signatures = seeds.map(sign).to_vec();
    minicbor::to_vec(Certificate { claim, signatures }).unwrap()
}

#[test]
fn a_new_key_is_given_out_if_all_nodes_that_the_client_knows_have_made_it() {
    let nodes = (1..=3).map(|seed| (format!("n{seed}"), public(&node(seed)))).collect();
    let nodes = Nodes { cluster: CLUSTER, partition: Some("test".into()), nodes };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mandate.key"), MandateKey::generate().unwrap().as_bytes()).unwrap();
    let desk = Desk::knowing(folder, Some(&nodes.to_text()));
    let generate = || {
        let private = Template::new()
            .with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(2))
            .with(CKA_STRONGROOM_PARTIES, Value::Ulong(3));
        let chosen = chosen(Mechanism::EcKeyPairGen, Params::None).unwrap();
        keys::generate_pair(&desk.context(), chosen, Template::new(), private)
    };
    // It gives none, and one of its own making.
    assert_eq!(generate().unwrap_err().rv(), CKR_DEVICE_ERROR);
    desk.vault.makes(|mandate| certificate(mandate, [1, 2, 9]));
    assert_eq!(generate().unwrap_err().rv(), CKR_DEVICE_ERROR);
    desk.vault.makes(|mandate| certificate(mandate, [1, 2, 3]));
    let (public, _) = generate().unwrap();
    // From then on it shows that key and no other.
    let (octets, shown) = ([&[4, 32][..], &KEY[..32]].concat(), ObjectId([1; 16]));
    let shows = |info: &[u8], point: &[u8]| {
        let template = Template::new()
            .with(CKA_PUBLIC_KEY_INFO, Value::bytes(info))
            .with(CKA_EC_POINT, Value::bytes(point));
        desk.vault.puts(shown, template);
        let read = |kind| object::read(&desk.context(), public, vec![kind]).is_ok();
        (read(CKA_PUBLIC_KEY_INFO), read(CKA_EC_POINT))
    };
    assert_eq!(shows(&KEY, &octets), (true, true));
    let other = [&[4, 32][..], &[9; 32]].concat();
    assert_eq!(shows(&[9; 44], &other), (false, false));
    assert_eq!(shows(&KEY, &octets[2..]), (true, false));
    fs::write(desk.folder.path().join("cluster.nodes"), "nonsense").unwrap();
    let mandates = desk.vault.mandates().len();
    assert_eq!(generate().unwrap_err(), Error::FunctionFailed);
    assert_eq!(desk.vault.mandates().len(), mandates, "nobody was asked");
}

#[test]
fn the_server_does_not_say_for_which_partition_or_cluster_the_client_signs() {
    let knowing = |partition: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mandate.key"), MandateKey::generate().unwrap().as_bytes()).unwrap();
        let partition = partition.map(str::to_owned);
        let nodes = Nodes { cluster: CLUSTER, partition, nodes: vec![("n1".into(), public(&node(1)))] };
        Desk::knowing(folder, Some(&nodes.to_text()))
    };
    // It says that this is "test".
    for (partition, expected) in
        [(Some("test"), Ok(())), (None, Ok(())), (Some("savings"), Err(CKR_DEVICE_ERROR))]
    {
        let desk = knowing(partition);
        let key = desk.shared_key();
        let signed = desk.sign(key).map(drop).map_err(|error| error.rv());
        assert_eq!(signed, expected, "{partition:?}");
        assert_eq!(desk.vault.mandates().len(), usize::from(expected.is_ok()), "{partition:?}");
    }
    let desk = knowing(Some("test"));
    let key = desk.shared_key();
    desk.vault.joins([1; 16]);
    assert_eq!(desk.sign(key).unwrap_err().rv(), CKR_DEVICE_ERROR, "another cluster");
    assert_eq!(desk.vault.mandates().len(), 0);
    // The administrator has told the client of it.
    let told = Nodes { cluster: [1; 16], partition: Some("test".into()), nodes: Vec::new() };
    fs::write(desk.folder.path().join("cluster.nodes"), told.to_text()).unwrap();
    desk.sign(key).unwrap();
}
