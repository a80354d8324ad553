//! What a node that does not run keeps of the one key that it shares with others, as far as tests read and change it.

use minicbor::Decode;
use strongroom_server::store::{self, PartitionId, Record, SealedStore, root_key, sqlite::Sqlite};
use strongroom_shared::{
    message::SecretBytes,
    object::ObjectId,
    shares::{Certificate, Claim},
};
use xtask::server::Server;

/// Its store, and its share of the key.
pub struct Kept {
    pub store: SealedStore<Sqlite>,
    pub records: Vec<Record>,
    pub partition: PartitionId,
    pub key: ObjectId,
    pub share: SecretBytes,
    /// What every node has said of its own share, as they signed it.
    pub signed: Vec<u8>,
    pub claim: Claim,
}

#[derive(Decode)]
struct ShareRecord {
    #[n(0)]
    share: SecretBytes,
    #[cbor(n(1), with = "minicbor::bytes")]
    certificate: Vec<u8>,
}

impl Kept {
    pub fn at(node: &Server) -> Self {
        let random: store::Random = Box::new(|bytes| aws_lc_rs::rand::fill(bytes).unwrap());
        let root = root_key::read(&node.state().join("root.key")).unwrap();
        let store = Sqlite::open(&node.state().join("store.db")).unwrap();
        let (store, records) = SealedStore::open(store, root, random).unwrap();
        let share = records.iter().find_map(|(path, bytes)| match path {
            store::Path::Share(partition, key) => Some((*partition, *key, bytes)),
            _ => None,
        });
        let (partition, key, share) = share.unwrap();
        let ShareRecord { share, certificate } = minicbor::decode(share).unwrap();
        let signed = minicbor::decode::<Certificate>(&certificate).unwrap().claim;
        let claim = minicbor::decode(&signed).unwrap();
        Self { store, records, partition, key, share, signed, claim }
    }
}
