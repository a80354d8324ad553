//! A vault of a few vectors, which says what a real one would say to an administrator.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use strongroom_server::{
    certificates::{Authority, pem},
    door::{Admission, Door, Pace, Peer, Verdict},
};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::*,
    object::{Descent, ObjectId, ObjectInfo, Usage},
    wire::{Call, CallId, HEADER, Header, decode_body, decode_caller, encode_fault, encode_reply},
};

use super::support::{Echo, now};

/// A vault of vectors.
pub struct Toy {
    echo: Echo,
    ca: Authority,
    partitions: Mutex<BTreeMap<String, (String, bool)>>,
    clients: Mutex<Vec<(ClientInfo, Vec<u8>)>>,
    admitted: Mutex<Vec<AdmitClient>>,
    /// How many audit records there are.
    records: u64,
}

/// The partition that stands for a certificate that is to be renewed.
pub const RIPE: &str = "ripe";
/// The partition whose end takes longer than anybody waits.
pub const STUCK: &str = "stuck";
pub const KEY: ObjectId = ObjectId([0xab; 16]);

impl Toy {
    /// One with nothing in it but so many audit records.
    pub fn new(echo: Echo, ca: Authority, records: u64) -> Self {
        let (partitions, clients, admitted) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { echo, ca, partitions, clients, admitted, records }
    }

    fn answer(&self, header: Header, rest: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        fn read<C: Call>(rest: &[u8]) -> C {
            decode_body(rest).unwrap()
        }
        let mut partitions = self.partitions.lock().unwrap();
        let missing = || Fault::new(FaultCode::NotFound, "no such partition");
        let info = |name: &str, frozen| PartitionInfo {
            name: name.into(),
            serial: "0123456789abcdef".into(),
            label: "wallet".into(),
            objects: 3,
            frozen,
        };
        match CallId::from_number(header.call).unwrap() {
            CallId::Hello => {
                let renew_in = partitions.contains_key(RIPE).then_some(0);
                let welcome = Welcome {
                    minor: 0,
                    limit: 1 << 20,
                    server: "toy".into(),
                    partition: None,
                    renew_in,
                    cluster: None,
                };
                encode_reply::<Hello>(out, header.id, &welcome);
            }
            CallId::CreatePartition => {
                let name = read::<CreatePartition>(rest).name;
                if partitions.insert(name.clone(), (String::new(), false)).is_some() {
                    return Err(Fault::new(FaultCode::AlreadyExists, name));
                }
                encode_reply::<CreatePartition>(out, header.id, &info(&name, false));
            }
            CallId::ListPartitions => {
                let partitions = partitions.iter().map(|(name, (_, frozen))| info(name, *frozen)).collect();
                encode_reply::<ListPartitions>(out, header.id, &Partitions { partitions });
            }
            CallId::DeletePartition => {
                let name = read::<DeletePartition>(rest).name;
                if name == STUCK {
                    thread::sleep(Duration::from_secs(12));
                }
                partitions.remove(&name).ok_or_else(missing)?;
                encode_reply::<DeletePartition>(out, header.id, &Done {});
            }
            CallId::SetPolicy => {
                let call = read::<SetPolicy>(rest);
                partitions.get_mut(&call.partition).ok_or_else(missing)?.0 = call.text;
                encode_reply::<SetPolicy>(out, header.id, &Done {});
            }
            CallId::ReadPolicy => {
                let text = partitions.get(&read::<ReadPolicy>(rest).partition).ok_or_else(missing)?.0.clone();
                encode_reply::<ReadPolicy>(out, header.id, &PolicyText { text });
            }
            CallId::Freeze => {
                let call = read::<Freeze>(rest);
                assert!(call.key.is_none_or(|key| key == KEY));
                partitions.get_mut(&call.partition).ok_or_else(missing)?.1 = true;
                encode_reply::<Freeze>(out, header.id, &Done {});
            }
            CallId::Thaw => {
                partitions.get_mut(&read::<Thaw>(rest).partition).ok_or_else(missing)?.1 = false;
                encode_reply::<Thaw>(out, header.id, &Done {});
            }
            CallId::AddClient => {
                let call = read::<AddClient>(rest);
                let partition = call.partition.as_deref();
                let made = self
                    .ca
                    .issue_client(&call.request, &call.name, partition, now(), call.days)
                    .map_err(|error| Fault::new(FaultCode::ArgumentsBad, error.to_string()))?;
                self.echo.let_in(&made.certificate);
                let reply = Certificate {
                    certificate: pem("CERTIFICATE", &made.certificate).to_string(),
                    authority: pem("CERTIFICATE", self.ca.certificate()).to_string(),
                };
                let client = ClientInfo {
                    name: call.name,
                    partition: call.partition,
                    fingerprint: (1..=32).collect(),
                    not_after: made.not_after,
                    revoked: false,
                };
                self.clients.lock().unwrap().push((client, made.certificate));
                encode_reply::<AddClient>(out, header.id, &reply);
            }
            CallId::RenewCertificate => {
                let request = read::<RenewCertificate>(rest).request;
                let made = self.ca.issue_client(&request, "admin", None, now(), 30).unwrap();
                self.echo.let_in(&made.certificate);
                partitions.remove(RIPE);
                let certificate = pem("CERTIFICATE", &made.certificate).to_string();
                let authority = pem("CERTIFICATE", self.ca.certificate()).to_string();
                let reply = Certificate { certificate, authority };
                encode_reply::<RenewCertificate>(out, header.id, &reply);
            }
            CallId::RenewServer => {
                let days = read::<RenewServer>(rest).days.unwrap_or(365);
                let not_after = now() + u64::from(days) * 86_400;
                let reply = ServerRenewed { not_after, fingerprint: (1..=32).collect() };
                encode_reply::<RenewServer>(out, header.id, &reply);
            }
            CallId::ListClients => {
                let clients = self.clients.lock().unwrap();
                let clients = clients.iter().map(|(client, _)| ClientInfo {
                    name: client.name.clone(),
                    partition: client.partition.clone(),
                    fingerprint: client.fingerprint.clone(),
                    ..*client
                });
                let admitted = self.admitted.lock().unwrap();
                let admitted = admitted.iter().map(|admitted| AdmittedKey {
                    name: admitted.name.clone(),
                    partition: admitted.partition.clone(),
                    key: admitted.key.clone(),
                });
                encode_reply::<ListClients>(
                    out,
                    header.id,
                    &Clients { clients: clients.collect(), admitted: Some(admitted.collect()) },
                );
            }
            CallId::AdmitClient => {
                self.admitted.lock().unwrap().push(read(rest));
                encode_reply::<AdmitClient>(out, header.id, &Done {});
            }
            CallId::RevokeClient => {
                let name = read::<RevokeClient>(rest).name;
                self.admitted.lock().unwrap().retain(|admitted| admitted.name != name);
                for (client, certificate) in self.clients.lock().unwrap().iter_mut() {
                    if client.name == name {
                        client.revoked = true;
                        self.echo.revoke(certificate);
                    }
                }
                encode_reply::<RevokeClient>(out, header.id, &Done {});
            }
            CallId::ListKeys => {
                let object = ObjectInfo {
                    id: KEY,
                    class: 3,
                    key_type: Some(3),
                    bits: 256,
                    usage: Usage::default(),
                    token: true,
                    private: true,
                    size: 100,
                    shares: None,
                    kept_from: None,
                };
                let descent = Some(Descent { master: KEY, path: vec![0, 7] });
                let key = KeyInfo { object, label: "hot".into(), id: vec![1], frozen: false, descent };
                encode_reply::<ListKeys>(out, header.id, &Keys { keys: vec![key] });
            }
            CallId::TailAudit => {
                let call = read::<TailAudit>(rest);
                let first = call.after.map_or(1, |after| after + 1);
                let records = (first..=self.records).map(|sequence| AuditRecord {
                    sequence,
                    time: 1_700_000_000_000_000,
                    act: "Sign".into(),
                    mechanism: Some(0x1041),
                    ..AuditRecord::default()
                });
                encode_reply::<TailAudit>(out, header.id, &AuditRecords { records: records.collect() });
            }
            CallId::VerifyAudit if partitions.contains_key("tampered") => {
                return Err(Fault::new(FaultCode::IntegrityViolated, "record 4"));
            }
            CallId::VerifyAudit => {
                encode_reply::<VerifyAudit>(
                    out,
                    header.id,
                    &AuditVerified { records: 5, head: vec![0xfe; 32] },
                );
            }
            CallId::ReadStatus => {
                let status = Status {
                    server: "toy 1".into(),
                    started: 1_700_000_000,
                    partitions: 1,
                    objects: 2,
                    session_objects: 3,
                    audit_records: 5,
                    isolation: "thread".into(),
                    commit: "process".into(),
                    waiting_shares: Some(5),
                    cluster: Some(ClusterStatus {
                        cluster: vec![7; 16],
                        version: 3,
                        node: "a".into(),
                        nodes: 3,
                        ill: vec![ill("b", "no answer"), ill("c", "")],
                        shared_keys: 6,
                        unproven: 2,
                        lost: 1,
                        banned: 0,
                        given_up: 0,
                        orders: 4,
                    }),
                };
                encode_reply::<ReadStatus>(out, header.id, &status);
            }
            _ => return Err(Fault::new(FaultCode::Internal, "")),
        }
        Ok(())
    }
}

fn ill(name: &str, trouble: &str) -> MemberState {
    MemberState {
        name: name.into(),
        reachable: false,
        sealed: false,
        version: None,
        seen: None,
        trouble: trouble.into(),
        digest: None,
    }
}

impl Door for Toy {
    fn admit(&self, certificate: &[u8], address: SocketAddr) -> Result<Arc<Peer>, Fault> {
        self.echo.admit(certificate, address)
    }

    fn pace(&self, _: &Peer, _: &[u8]) -> Pace {
        Pace::Slow
    }

    fn handle(&self, peer: &Peer, frame: &[u8], out: &mut Vec<u8>) -> Verdict {
        let (header, body) = frame.split_first_chunk::<HEADER>().unwrap();
        let header = Header::decode(header, u32::MAX).unwrap();
        let (_, rest) = decode_caller(body).unwrap();
        let result = match peer.partition {
            Some(_) => Err(Fault::new(FaultCode::Forbidden, "not an administrator")),
            None => self.answer(header, rest, out),
        };
        if let Err(fault) = result {
            encode_fault(out, header.id, header.call, &fault);
        }
        Verdict::Answered
    }

    fn commit(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn disconnect(&self, _: &Peer) {}

    fn refused(&self, _: SocketAddr, _: Option<&[u8]>, _: &str) {}

    fn admissions(&self) -> (u64, Vec<Admission>) {
        self.echo.admissions()
    }

    fn admissions_version(&self) -> u64 {
        self.echo.admissions_version()
    }

    fn tick(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn close(&self) {}
}
