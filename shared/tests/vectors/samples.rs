//! The values behind the golden bytes: each call with every shape that its fields can take.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::{Fault, FaultCode},
    mandate::Mandated,
    mechanism::{CKM_STRONGROOM_BIP32_CHILD, Hash, Params},
    message::*,
    object::{Descent, ObjectId, ObjectInfo, Shares, Template, Usage, Value},
    wire::{Call, encode_fault, encode_reply, encode_request},
};
use zeroize::Zeroizing;

/// The file (a call, or `faults`), the line's name, and the frame.
pub type Sample = (String, &'static str, Vec<u8>);

/// The number of every sample's request.
const ID: u64 = 0x0123_4567_89ab_cdef;

/// Every sample.
pub fn all() -> Vec<Sample> {
    [
        connection(),
        token(),
        objects(),
        keys(),
        acts(),
        partitions(),
        clients(),
        operations(),
        cluster(),
        nodes(),
        shared_keys(),
        shares(),
        faults(),
    ]
    .concat()
}

fn connection() -> Vec<Sample> {
    let welcome = |partition: Option<&str>| Welcome {
        minor: 1,
        limit: 1 << 20,
        server: "strongroom 0.1.0".into(),
        partition: partition.map(Into::into),
        renew_in: None,
        cluster: None,
    };
    let renewing = Welcome { renew_in: Some(86_400), ..welcome(Some("trading")) };
    let node = Welcome { cluster: Some([7; 16].into()), ..welcome(Some("trading")) };
    vec![
        public("request", &Hello { minor: 0, client: "strongroom 0.1.0".into() }),
        reply::<Hello>("reply", &welcome(Some("trading"))),
        reply::<Hello>("reply-to-an-administrator", &welcome(None)),
        reply::<Hello>("reply-with-a-time-to-renew", &renewing),
        reply::<Hello>("reply-of-a-node", &node),
        public("request", &RenewCertificate { request: vec![0x30, 0] }),
        reply::<RenewCertificate>("reply", &certificate()),
    ]
}

fn token() -> Vec<Sample> {
    let state = |user, security_officer| Token {
        label: "desk".into(),
        serial: "0123456789abcdef".into(),
        initialized: true,
        user_pin_set: false,
        user,
        security_officer,
        min_pin: 4,
        max_pin: 255,
    };
    vec![
        public("request", &ReadToken {}),
        reply::<ReadToken>("reply", &state(Tries::All, Tries::Some)),
        reply::<ReadToken>("reply-locked", &state(Tries::Last, Tries::None)),
        public("request", &InitToken { pin: pin(), label: "desk".into() }),
        reply::<InitToken>("reply", &Done {}),
        request("request", &InitPin { pin: pin() }),
        reply::<InitPin>("reply", &Done {}),
        request("request", &SetPin { old: pin(), new: Pin::new(b"654321") }),
        reply::<SetPin>("reply", &PinChanged { ticket: Some(ticket()) }),
        reply::<SetPin>("reply-without-a-login", &PinChanged { ticket: None }),
        public("request", &Login { user: User::Normal, pin: pin() }),
        public("request-of-the-officer", &Login { user: User::SecurityOfficer, pin: pin() }),
        reply::<Login>("reply", &LoggedIn { ticket: ticket(), expires: 1_800_000_000, life: None }),
        reply::<Login>(
            "reply-with-the-life-of-the-ticket",
            &LoggedIn { ticket: ticket(), expires: 1_800_000_000, life: Some(28_800) },
        ),
        request("request", &RenewTicket {}),
        reply::<RenewTicket>(
            "reply",
            &LoggedIn { ticket: ticket(), expires: 1_800_000_000, life: Some(28_800) },
        ),
        request("request", &Logout {}),
        reply::<Logout>("reply", &Done {}),
    ]
}

fn objects() -> Vec<Sample> {
    let (object, other) = (id(1), id(2));
    let answers = vec![
        Answer::Value(Value::bytes(*b"label")),
        Answer::Value(Value::Bool(true)),
        Answer::Value(Value::Ulong(3)),
        Answer::Value(Value::Mechanisms(vec![CKM_ECDSA, CKM_SHA256_HMAC])),
        Answer::Sensitive,
        Answer::Absent,
    ];
    vec![
        request("request", &CreateObject { template: template() }),
        reply::<CreateObject>("reply", &private_key()),
        reply::<CreateObject>("reply-data", &data()),
        request("request", &CopyObject { object, template: template() }),
        reply::<CopyObject>("reply", &private_key()),
        request("request", &DestroyObject { object }),
        reply::<DestroyObject>("reply", &Done {}),
        request("request", &DescribeObject { object }),
        reply::<DescribeObject>("reply", &private_key()),
        reply::<DescribeObject>(
            "reply-kept-from",
            &ObjectInfo { kept_from: Some(vec![CKM_ECDSA]), ..private_key() },
        ),
        request("request", &ReadAttributes { object, kinds: vec![CKA_LABEL, CKA_TOKEN, CKA_VALUE] }),
        reply::<ReadAttributes>("reply", &Attributes { answers }),
        request("request", &WriteAttributes { object, template: Template::new() }),
        reply::<WriteAttributes>("reply", &Done {}),
        request("request", &FindObjects { template: template(), after: Some(other) }),
        request("request-first-page", &FindObjects { template: Template::new(), after: None }),
        reply::<FindObjects>("reply", &Found { objects: vec![private_key(), data()], more: true }),
        reply::<FindObjects>("reply-nothing", &Found { objects: vec![], more: false }),
        request("request", &CloseSession {}),
        reply::<CloseSession>("reply", &Done {}),
        public("request", &EndInstance {}),
        reply::<EndInstance>("reply", &Done {}),
    ]
}

fn keys() -> Vec<Sample> {
    let pair = GenerateKeyPair {
        mechanism: CKM_EC_KEY_PAIR_GEN,
        params: Params::None,
        public: Template::new().with(CKA_EC_PARAMS, Value::bytes([6, 5, 0x2b, 0x81, 4, 0, 0x0a])),
        private: template(),
    };
    let key = GenerateKey { mechanism: CKM_AES_KEY_GEN, params: Params::None, template: template() };
    vec![
        request("request", &key),
        reply::<GenerateKey>("reply", &private_key()),
        request("request", &pair),
        reply::<GenerateKeyPair>(
            "reply",
            &KeyPair { public: data(), private: private_key(), certificate: None },
        ),
    ]
}

fn acts() -> Vec<Sample> {
    let (key, input) = (id(1), b"buy low, sell high".to_vec());
    let pss = Params::Pss { hash: Hash::Sha256, mgf: Hash::Sha512, salt_length: 32 };
    let oaep = Params::Oaep { hash: Hash::Sha1, mgf: Hash::Sha384, label: b"label".to_vec() };
    let gcm = Params::Gcm { iv: vec![7; 12], aad: b"header".to_vec(), tag_bits: 128 };
    let ctr = Params::Ctr { bits: 64, block: [8; 16] };
    let sign = |mechanism, params| Sign { key, mechanism, params, input: input.clone() };
    let encrypt = |mechanism, params| Encrypt { key, mechanism, params, input: input.clone() };
    let decrypt = |mechanism, params| Decrypt { key, mechanism, params, input: input.clone() };
    let verify = Verify {
        key,
        mechanism: CKM_ECDSA_SHA256,
        params: Params::None,
        input: input.clone(),
        signature: vec![1; 64],
    };
    vec![
        request("request", &sign(CKM_ECDSA_SHA256, Params::None)),
        request("request-pss", &sign(CKM_SHA256_RSA_PKCS_PSS, pss)),
        reply::<Sign>("reply", &Signature { bytes: vec![1; 64] }),
        request("request", &verify),
        reply::<Verify>("reply", &Done {}),
        request("request-cbc", &encrypt(CKM_AES_CBC_PAD, Params::Iv([9; 16]))),
        request("request-ctr", &encrypt(CKM_AES_CTR, ctr)),
        request("request-gcm", &encrypt(CKM_AES_GCM, gcm)),
        reply::<Encrypt>("reply", &bytes()),
        request("request-cbc", &decrypt(CKM_AES_CBC_PAD, Params::Iv([9; 16]))),
        request("request-oaep", &decrypt(CKM_RSA_PKCS_OAEP, oaep)),
        reply::<Decrypt>("reply", &bytes()),
        request("request", &GenerateRandom { length: 32 }),
        reply::<GenerateRandom>("reply", &bytes()),
        request("request", &SeedRandom { seed: vec![5; 16] }),
        reply::<SeedRandom>("reply", &Done {}),
    ]
}

fn partitions() -> Vec<Sample> {
    let name = || String::from("trading");
    let partition = PartitionInfo {
        name: name(),
        serial: "0123456789abcdef".into(),
        label: "desk".into(),
        objects: 3,
        frozen: false,
    };
    let key = |descent| {
        let (object, id) = (private_key(), vec![0xca, 0xfe]);
        KeyInfo { object, label: "k".into(), id, frozen: true, descent }
    };
    let (whole, of_key) = (|| None, || Some(id(1)));
    vec![
        public("request", &CreatePartition { name: name() }),
        reply::<CreatePartition>("reply", &partition),
        public("request", &DeletePartition { name: name() }),
        reply::<DeletePartition>("reply", &Done {}),
        public("request", &ListPartitions {}),
        reply::<ListPartitions>("reply", &Partitions { partitions: vec![partition] }),
        public("request", &ListKeys { partition: name() }),
        reply::<ListKeys>("reply", &Keys { keys: vec![key(None)] }),
        reply::<ListKeys>(
            "reply-descendant",
            &Keys { keys: vec![key(Some(Descent { master: id(1), path: vec![0, 0x7fff_ffff] }))] },
        ),
        public("request", &SetPolicy { partition: name(), text: "default = \"refuse\"\n".into() }),
        reply::<SetPolicy>("reply", &Done {}),
        public("request", &ReadPolicy { partition: name() }),
        reply::<ReadPolicy>("reply", &PolicyText { text: "default = \"refuse\"\n".into() }),
        public("request", &Freeze { partition: name(), key: of_key() }),
        public("request-whole-partition", &Freeze { partition: name(), key: whole() }),
        reply::<Freeze>("reply", &Done {}),
        public("request", &Thaw { partition: name(), key: of_key() }),
        public("request-whole-partition", &Thaw { partition: name(), key: whole() }),
        reply::<Thaw>("reply", &Done {}),
    ]
}

fn clients() -> Vec<Sample> {
    let add = |partition: Option<&str>| AddClient {
        name: "desk".into(),
        partition: partition.map(Into::into),
        request: vec![0x30, 0],
        days: 30,
    };
    let client = |partition: Option<&str>| ClientInfo {
        name: "desk".into(),
        partition: partition.map(Into::into),
        fingerprint: vec![0xfe; 32],
        not_after: 1_800_000_000,
        revoked: false,
    };
    let clients = || vec![client(Some("trading")), client(None)];
    let key = AdmittedKey { name: "desk".into(), partition: "trading".into(), key: vec![0xed; 32] };
    let admitted = Some(vec![key]);
    vec![
        public("request", &add(Some("trading"))),
        public("request-administrator", &add(None)),
        reply::<AddClient>("reply", &certificate()),
        public("request", &RevokeClient { name: "desk".into() }),
        reply::<RevokeClient>("reply", &Done {}),
        public("request", &ListClients {}),
        reply::<ListClients>("reply", &Clients { clients: clients(), admitted: None }),
        reply::<ListClients>("reply-with-admitted-keys", &Clients { clients: clients(), admitted }),
    ]
}

fn certificate() -> Certificate {
    let pem = |name| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    Certificate { certificate: pem("client"), authority: pem("ca") }
}

fn operations() -> Vec<Sample> {
    let refused = AuditRecord { sequence: 8, outcome: Outcome::Refused, ..AuditRecord::default() };
    let failed = AuditRecord { sequence: 9, outcome: Outcome::Failed, ..AuditRecord::default() };
    let status = |waiting_shares, cluster| Status {
        server: "strongroom 0.1.0".into(),
        started: 1_700_000_000,
        partitions: 1,
        objects: 2,
        session_objects: 3,
        audit_records: 4,
        isolation: "process".into(),
        commit: "power".into(),
        waiting_shares,
        cluster,
    };
    let ill = MemberState {
        name: "c".into(),
        reachable: false,
        sealed: false,
        version: Some(3),
        seen: Some(1_700_000_000),
        trouble: "no answer".into(),
        digest: None,
    };
    let cluster = ClusterStatus {
        cluster: vec![7; 16],
        version: 3,
        node: "a".into(),
        nodes: 3,
        ill: vec![ill],
        shared_keys: 6,
        unproven: 2,
        lost: 1,
        banned: 4,
        given_up: 5,
        orders: 8,
    };
    vec![
        public("request", &TailAudit { count: 10, after: Some(7) }),
        public("request-from-the-start", &TailAudit { count: 10, after: None }),
        reply::<TailAudit>("reply", &AuditRecords { records: vec![record(), refused, failed] }),
        public("request", &VerifyAudit {}),
        reply::<VerifyAudit>("reply", &AuditVerified { records: 9, head: vec![0xaa; 32] }),
        public("request", &ReadStatus {}),
        reply::<ReadStatus>("reply", &status(None, None)),
        reply::<ReadStatus>("reply-of-a-node", &status(Some(5), None)),
        reply::<ReadStatus>("reply-of-a-member", &status(Some(0), Some(cluster))),
        public("request", &RenewServer { days: Some(90) }),
        public("request-as-the-present-one", &RenewServer { days: None }),
        reply::<RenewServer>(
            "reply",
            &ServerRenewed { not_after: 1_800_000_000, fingerprint: vec![0xfe; 32] },
        ),
    ]
}

fn record() -> AuditRecord {
    AuditRecord {
        sequence: 7,
        time: 1_700_000_000_000_000,
        partition: "trading".into(),
        client: "desk".into(),
        certificate: vec![0xfe; 8],
        instance: InstanceId([1; 16]),
        session: 3,
        request: ID,
        act: "Sign".into(),
        object: Some(id(1)),
        mechanism: Some(CKM_ECDSA_SHA256),
        message_hash: vec![0xab; 32],
        outcome: Outcome::Done,
        detail: "rule".into(),
        store_version: Some(5),
        charged: Some(id(1)),
    }
}

fn faults() -> Vec<Sample> {
    let fault = |code: &FaultCode| {
        let mut frame = Vec::new();
        encode_fault(&mut frame, ID, 0x0140, &Fault::new(*code, "why"));
        let name: &'static str = format!("{code:?}").leak();
        (String::from("faults"), name, frame)
    };
    FaultCode::ALL.iter().map(fault).collect()
}

fn cluster() -> Vec<Sample> {
    let introduction = |document: &[u8], proof: Option<[u8; 64]>| Introduction {
        authority: vec![0x30, 1],
        certificate: vec![0x30, 2],
        identity: vec![3; 32],
        sealing: vec![4; 32],
        document: document.into(),
        proof: proof.map(|proof| proof.to_vec().into()),
    };
    let well = MemberState {
        name: "a".into(),
        reachable: true,
        sealed: true,
        version: Some(7),
        seen: Some(1_767_571_200),
        trouble: String::new(),
        digest: None,
    };
    let never_seen = MemberState {
        name: "b".into(),
        reachable: false,
        sealed: false,
        version: None,
        seen: None,
        trouble: "it is down".into(),
        digest: None,
    };
    let split = MemberState {
        name: "c".into(),
        reachable: true,
        sealed: false,
        version: Some(7),
        seen: Some(1_767_571_200),
        trouble: "another document".into(),
        digest: Some(vec![6; 32].into()),
    };
    vec![
        public("request", &Introduce { name: "a".into(), challenge: None }),
        public("request-challenge", &Introduce { name: "a".into(), challenge: Some(vec![5; 32].into()) }),
        reply::<Introduce>("reply", &introduction(b"document", None)),
        reply::<Introduce>("reply-proof", &introduction(b"document", Some([7; 64]))),
        reply::<Introduce>("reply-without-a-cluster", &introduction(b"", None)),
        public("request", &InstallMembership { document: b"document".to_vec() }),
        reply::<InstallMembership>("reply", &Done {}),
        public("request", &ReadCluster {}),
        reply::<ReadCluster>(
            "reply",
            &ClusterState { document: b"document".to_vec(), members: vec![well, never_seen] },
        ),
        reply::<ReadCluster>(
            "reply-split",
            &ClusterState { document: b"document".to_vec(), members: vec![split] },
        ),
    ]
}

fn nodes() -> Vec<Sample> {
    vec![
        public("request", &GreetNode { version: 7 }),
        reply::<GreetNode>("reply", &NodeGreeting { version: 8, digest: None }),
        reply::<GreetNode>("reply-digest", &NodeGreeting { version: 8, digest: Some(vec![6; 32].into()) }),
        public("request", &OfferMembership { document: b"document".to_vec() }),
        reply::<OfferMembership>("reply", &Done {}),
        public("request", &ShakeHands { message: vec![5; 48] }),
        reply::<ShakeHands>("reply", &HandsShaken { session: 9, message: vec![6; 48] }),
        public("request", &SealedCall { session: 9, counter: 10, sealed: vec![7; 20] }),
        reply::<SealedCall>("reply", &SealedReply { sealed: vec![8; 20] }),
        reply::<SealedCall>("reply-of-no-session", &SealedReply { sealed: Vec::new() }),
    ]
}

fn shares() -> Vec<Sample> {
    let read = |epoch: Option<u64>, proof: Option<[u8; 64]>| SharesRead {
        partition: "trading".into(),
        key: ObjectId([1; 16]),
        label: b"hot".to_vec(),
        public_key: vec![4; 65],
        epoch,
        threshold: 2,
        seats: vec![vec![0xa; 32].into(), vec![0xb; 32].into()],
        bans: 1,
        node: vec![0xa; 32],
        proof: proof.map(|proof| proof.to_vec().into()),
        waiting: None,
    };
    let new = SharesRead { waiting: Some(1_767_571_200), ..read(None, Some([7; 64])) };
    let share = WaitingShare {
        key: ObjectId([1; 16]),
        epoch: 0,
        label: b"hot".to_vec(),
        node: "a".into(),
        since: 1_767_571_200,
        new: true,
    };
    let ask = ReadShares { partition: "trading".into(), key: ObjectId([1; 16]), challenge: vec![5; 32] };
    let renew = RenewShares { order: b"order".to_vec(), key: vec![0xed; 32], signature: vec![9; 64] };
    let waiting = |trouble| WaitingOrder {
        order: b"order".to_vec(),
        signed_by: vec!["ann".into()],
        needed: 2,
        trouble,
    };
    let tried = Some("node c is away".into());
    let state = |epoch, note: &str| OrderState { approvals: 1, needed: 2, epoch, note: note.into() };
    vec![
        public("request", &ask),
        reply::<ReadShares>("reply", &read(Some(3), Some([7; 64]))),
        reply::<ReadShares>("reply-of-no-shares", &read(None, None)),
        reply::<ReadShares>("reply-of-a-new-key", &new),
        public("request", &renew),
        reply::<RenewShares>("reply", &state(None, "")),
        reply::<RenewShares>("reply-done", &state(Some(4), "node c is away")),
        public("request", &ListOrders {}),
        reply::<ListOrders>("reply", &Orders { orders: vec![waiting(None)] }),
        reply::<ListOrders>("reply-of-one-tried", &Orders { orders: vec![waiting(tried)] }),
        public("request", &ListWaiting { partition: "trading".into() }),
        reply::<ListWaiting>("reply", &WaitingShares { shares: vec![share] }),
    ]
}

fn shared_keys() -> Vec<Sample> {
    let mandated = || Mandated { text: b"mandate".to_vec(), signature: vec![9; 64] };
    let admit = AdmitClient { name: "desk".into(), partition: "trading".into(), key: vec![0xed; 32] };
    let shares = Some(Shares { threshold: 2, parties: 3 });
    let private = ObjectInfo { shares, ..private_key() };
    let child = ObjectInfo { shares, ..private_key() };
    let derive = DeriveKey {
        mechanism: CKM_STRONGROOM_BIP32_CHILD,
        params: Params::Path(vec![0, 0x7fff_ffff]),
        base: id(1),
        template: template(),
    };
    vec![
        public("request", &admit),
        reply::<AdmitClient>("reply", &Done {}),
        request("request", &GenerateShared { mandated: mandated() }),
        reply::<GenerateShared>(
            "reply",
            &KeyPair { public: data(), private: private.clone(), certificate: None },
        ),
        reply::<GenerateShared>(
            "reply-with-certificate",
            &KeyPair { public: data(), private, certificate: Some(b"certificate".to_vec().into()) },
        ),
        request("request", &derive),
        reply::<DeriveKey>("reply", &child),
        request("request", &DeriveShared { mandated: mandated() }),
        reply::<DeriveShared>("reply", &child),
        request("request", &SignShared { mandated: mandated() }),
        reply::<SignShared>("reply", &Signature { bytes: vec![1; 64] }),
        request("request", &DestroyShared { mandated: mandated() }),
        reply::<DestroyShared>("reply", &Done {}),
    ]
}

/// A request of an application that is logged in.
fn request<C: Call>(name: &'static str, call: &C) -> Sample {
    let caller = Caller {
        instance: InstanceId([1; 16]),
        session: 3,
        read_write: true,
        ticket: Some(ticket()),
        ended: vec![ID - 2, ID - 1],
    };
    let mut frame = Vec::new();
    encode_request(&mut frame, ID, &caller, call);
    (C::ID.name().into(), name, frame)
}

/// A request without a session or a login.
fn public<C: Call>(name: &'static str, call: &C) -> Sample {
    let mut frame = Vec::new();
    encode_request(&mut frame, ID, &Caller::default(), call);
    (C::ID.name().into(), name, frame)
}

fn reply<C: Call>(name: &'static str, reply: &C::Reply) -> Sample {
    let mut frame = Vec::new();
    encode_reply::<C>(&mut frame, ID, reply);
    (C::ID.name().into(), name, frame)
}

fn id(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

fn pin() -> Pin {
    Pin::new(b"123456")
}

fn ticket() -> Ticket {
    Ticket(Zeroizing::new(vec![0x71; 40]))
}

fn bytes() -> Bytes {
    Bytes { bytes: SecretBytes(b"buy low"[..].into()) }
}

/// An attribute of each shape.
fn template() -> Template {
    Template::new()
        .with(CKA_CLASS, Value::Ulong(CKO_PRIVATE_KEY))
        .with(CKA_TOKEN, Value::Bool(true))
        .with(CKA_LABEL, Value::bytes(*b"k"))
        .with(CKA_START_DATE, Value::bytes(*b"20260101"))
        .with(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_ECDSA_SHA256]))
}

fn private_key() -> ObjectInfo {
    ObjectInfo {
        id: id(1),
        class: CKO_PRIVATE_KEY,
        key_type: Some(CKK_EC),
        bits: 256,
        usage: Usage::SIGN,
        token: true,
        private: true,
        size: 300,
        shares: None,
        kept_from: None,
    }
}

fn data() -> ObjectInfo {
    ObjectInfo {
        id: id(2),
        class: CKO_DATA,
        key_type: None,
        bits: 0,
        usage: Usage(0),
        token: false,
        private: false,
        size: 40,
        shares: None,
        kept_from: None,
    }
}
