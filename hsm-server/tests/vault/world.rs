//! A vault, an administrator and an application, all in this process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pkcs11_sys::*;
use strongroom_server::{
    audit::{Durability, memory::MemorySink},
    certificates,
    door::{Door, Peer, Verdict},
    platform::Fake,
    store::memory::Memory,
    vault::{Requests, Settings, Vault, initialise},
};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    mechanism::Params,
    message::*,
    object::{ObjectId, Template, Value},
    secret::Secret,
    wire::{Call, HEADER, Header, Kind, decode_body, encode_request},
};

pub const START: u64 = 1_767_571_200_000_000;
pub const USER_PIN: &[u8] = b"1234";
pub const SO_PIN: &[u8] = b"so-pin";
pub const ROOT: [u8; 32] = [42; 32];

/// Everything that outlives a vault's process.
pub struct World {
    pub platform: Arc<Fake>,
    pub store: Memory,
    pub sink: MemorySink,
    pub administrator: Vec<u8>,
    pub server: Vec<u8>,
    pub node: [u8; 32],
    pub requests: AtomicU64,
    /// `frame_bytes` of its settings.
    pub frame_bytes: u32,
    /// The schedule of its vaults that start from now on.
    pub refresh_hours: AtomicU64,
}

/// A connection with its application.
pub struct Client {
    pub peer: Arc<Peer>,
    pub caller: Caller,
}

impl World {
    pub fn new() -> Self {
        Self::with_seed(1)
    }

    /// A world of its own among several.
    pub fn with_seed(seed: u64) -> Self {
        Self::with(Fake::new(START, seed), certificates::request("server").unwrap().1)
    }

    /// On this platform, with a server that asks for its certificate by this request.
    pub fn with(platform: Fake, server: Vec<u8>) -> Self {
        let platform = Arc::new(platform);
        let (store, sink) = (Memory::default(), MemorySink::default());
        let requests = Requests {
            server,
            names: vec!["localhost".into()],
            administrator: certificates::request("admin").unwrap().1,
            days: 365,
        };
        let made = initialise(&platform, store.clone(), sink.clone(), Secret::new(ROOT), &requests).unwrap();
        let (administrator, server, node) = (made.administrator, made.server, made.node);
        Self {
            platform,
            store,
            sink,
            administrator,
            server,
            node,
            requests: AtomicU64::new(1),
            frame_bytes: 1 << 20,
            refresh_hours: AtomicU64::new(0),
        }
    }

    /// A process of the server. Dropping it is kill -9.
    pub fn vault(&self) -> Vault<Fake> {
        self.try_vault().unwrap()
    }

    pub fn try_vault(&self) -> Result<Vault<Fake>, strongroom_server::vault::Error> {
        let settings = Settings {
            names: vec!["localhost".into()],
            frame_bytes: self.frame_bytes,
            ticket_seconds: 3600,
            idle_seconds: 86_400,
            durability: Durability::Process,
            isolation: "thread".into(),
            refresh_hours: self.refresh_hours.load(Ordering::Relaxed),
        };
        Vault::open(
            Arc::clone(&self.platform),
            self.store.clone(),
            self.sink.clone(),
            Secret::new(ROOT),
            settings,
        )
    }

    pub fn administrator(&self, vault: &Vault<Fake>) -> Client {
        self.connect(vault, &self.administrator, 0)
    }

    pub fn connect(&self, vault: &Vault<Fake>, certificate: &[u8], instance: u8) -> Client {
        let peer = vault.admit(certificate, ([127, 0, 0, 1], 7).into()).unwrap();
        let caller = Caller {
            instance: InstanceId([instance; 16]),
            session: 1,
            read_write: true,
            ..Caller::default()
        };
        Client { peer, caller }
    }

    /// A partition and the certificate of a client of it.
    pub fn partition(&self, vault: &Vault<Fake>, name: &str, client: &str) -> Vec<u8> {
        let admin = self.administrator(vault);
        self.ask(vault, &admin, &CreatePartition { name: name.into() }).unwrap();
        self.client(vault, name, client, 30)
    }

    /// The certificate of another client of a partition.
    pub fn client(&self, vault: &Vault<Fake>, partition: &str, name: &str, days: u32) -> Vec<u8> {
        let (_, request) = certificates::request(name).unwrap();
        let call = AddClient { name: name.into(), partition: Some(partition.into()), request, days };
        let made = self.ask(vault, &self.administrator(vault), &call).unwrap();
        pem::parse(made.certificate).unwrap().into_contents()
    }

    /// An initialised token with an application that is logged in.
    pub fn desk(&self, vault: &Vault<Fake>) -> (Vec<u8>, Client) {
        let certificate = self.partition(vault, "trading", "desk");
        let mut client = self.connect(vault, &certificate, 1);
        let init = InitToken { pin: Pin::new(SO_PIN), label: "desk".into() };
        self.ask(vault, &client, &init).unwrap();
        self.login(vault, &mut client, User::SecurityOfficer, SO_PIN).unwrap();
        self.ask(vault, &client, &InitPin { pin: Pin::new(USER_PIN) }).unwrap();
        self.login(vault, &mut client, User::Normal, USER_PIN).unwrap();
        (certificate, client)
    }

    pub fn login(
        &self,
        vault: &Vault<Fake>,
        client: &mut Client,
        user: User,
        pin: &[u8],
    ) -> Result<(), Fault> {
        let login = self.ask(vault, client, &Login { user, pin: Pin::new(pin) })?;
        client.caller.ticket = Some(login.ticket);
        Ok(())
    }

    /// One call, through bytes.
    pub fn ask<C: Call>(&self, vault: &Vault<Fake>, client: &Client, call: &C) -> Result<C::Reply, Fault> {
        self.ask_as(vault, client, self.requests.fetch_add(1, Ordering::Relaxed), call)
    }

    /// One call with a request number of its own, to send it again.
    pub fn ask_as<C: Call>(
        &self,
        vault: &Vault<Fake>,
        client: &Client,
        id: u64,
        call: &C,
    ) -> Result<C::Reply, Fault> {
        let mut frame = Vec::new();
        encode_request(&mut frame, id, &client.caller, call);
        let mut reply = Vec::new();
        assert_eq!(vault.handle(&client.peer, &frame, &mut reply), Verdict::Answered);
        vault.commit().unwrap();
        let header = Header::decode(reply[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
        assert_eq!((header.id, header.length as usize), (id, reply.len() - HEADER));
        match header.kind {
            Kind::Reply => Ok(decode_body(&reply[HEADER..]).unwrap()),
            Kind::Fault => Err(decode_body(&reply[HEADER..]).unwrap()),
            Kind::Request => panic!("a request for an answer"),
        }
    }

    pub fn records(&self, vault: &Vault<Fake>) -> Vec<AuditRecord> {
        self.ask(vault, &self.administrator(vault), &TailAudit { count: 1000, after: None }).unwrap().records
    }
}

/// secp256k1, as an OID.
pub const SECP256K1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

pub fn ec_pair(label: &str) -> GenerateKeyPair {
    let label = || Value::bytes(label.as_bytes());
    GenerateKeyPair {
        mechanism: CKM_EC_KEY_PAIR_GEN,
        params: Params::None,
        public: Template::new()
            .with(CKA_EC_PARAMS, Value::bytes(SECP256K1))
            .with(CKA_TOKEN, Value::Bool(true))
            .with(CKA_LABEL, label()),
        private: Template::new().with(CKA_TOKEN, Value::Bool(true)).with(CKA_LABEL, label()),
    }
}

pub fn sign(key: ObjectId) -> Sign {
    Sign { key, mechanism: CKM_ECDSA_SHA256, params: Params::None, input: b"buy low, sell high".to_vec() }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Fault>) -> FaultCode {
    result.unwrap_err().code
}
