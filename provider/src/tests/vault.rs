//! A small vault for tests: it keeps secret keys in memory and works with them for real, remembers what it was
//! asked and what it answered, and fails on command. It checks no permissions: the real vault's tests do.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::{cipher, digest, hmac};
use pkcs11_sys::*;
use strongroom_shared::{
    fault::{Fault, FaultCode},
    mandate::{Mandate, Mandated},
    mechanism::{Mechanism, Params},
    message::*,
    object::{CKA_STRONGROOM_THRESHOLD, ObjectId, ObjectInfo, Shares, Template, Usage, Value},
    wire::{self, Call, CallId, DEFAULT_LIMIT, HEADER, Header, Retry},
};
use zeroize::Zeroizing;

use crate::hsm::{Limits, Link, Transport};

pub(crate) const PIN: &[u8] = b"123456";
/// How many objects a page of a search holds.
pub(crate) const PAGE: usize = 2;

type Answer<T> = Result<T, Fault>;

#[derive(Default)]
pub(crate) struct ScriptedVault {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectId, (Template, InstanceId, u64)>,
    calls: Vec<(CallId, Caller)>,
    acts: usize,
    answered: HashMap<(InstanceId, u64), Vec<u8>>,
    script: VecDeque<Event>,
    epoch: u8,
    age: u8,
    life: Option<u64>,
    renew_in: Option<u64>,
    issuer: Option<Issuer>,
    administrator: bool,
    cluster: Option<[u8; 16]>,
    mandates: Vec<Mandated>,
    certify: Option<Certify>,
}

/// Makes the certificate of a key that this mandate asks for.
pub(crate) type Certify = fn(&[u8]) -> Vec<u8>;

/// Makes a certificate (PEM) for a request (DER).
pub(crate) type Issuer = Box<dyn FnMut(&[u8]) -> Answer<Certificate> + Send>;

/// What goes wrong with the next exchange.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The request does not arrive.
    Lost(Link),
    /// It is carried out, but the answer does not come.
    AnswerLost(Link),
    /// It is carried out, and its connection is silent for as long as anybody listens.
    Silence,
    /// It is refused.
    Fault(FaultCode),
    /// The answer is these bytes.
    Garbage(Vec<u8>),
}

impl ScriptedVault {
    /// A server to which every certificate is an administrator's.
    pub fn for_administrators() -> Self {
        Self { state: Mutex::new(State { administrator: true, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn will(&self, events: impl IntoIterator<Item = Event>) {
        self.state().script.extend(events);
    }

    /// What it was asked, in order.
    pub fn calls(&self) -> Vec<CallId> {
        self.state().calls.iter().map(|(call, _)| *call).collect()
    }

    pub fn last_caller(&self) -> Caller {
        self.state().calls.last().unwrap().1.clone()
    }

    pub fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// How many requests were carried out that may be carried out only once.
    pub fn acts(&self) -> usize {
        self.state().acts
    }

    /// Ends every login.
    pub fn expire_tickets(&self) {
        self.state().epoch += 1;
    }

    /// Makes every ticket so old that it is only good to be renewed.
    pub fn age_tickets(&self) {
        self.state().age += 1;
    }

    /// From here on certificates are to be renewed at once, by this CA, until one was.
    pub fn renews_by(&self, issuer: Issuer) {
        let mut state = self.state();
        (state.renew_in, state.issuer) = (Some(0), Some(issuer));
    }

    /// From here on tickets are good for so many seconds.
    pub fn tickets_live(&self, seconds: u64) {
        self.state().life = Some(seconds);
    }

    /// From here on it is a node of this cluster.
    pub fn joins(&self, cluster: [u8; 16]) {
        self.state().cluster = Some(cluster);
    }

    /// From here on it gives such a certificate with a shared key.
    pub fn makes(&self, certify: Certify) {
        self.state().certify = Some(certify);
    }

    /// Answers for an object that was not made here.
    pub fn puts(&self, object: ObjectId, template: Template) {
        self.state().objects.insert(object, (template, InstanceId::default(), 0));
    }

    /// The mandates that came, in order.
    pub fn mandates(&self) -> Vec<Mandated> {
        self.state().mandates.clone()
    }

    /// Changes an object behind the provider's back.
    pub fn change(&self, kind: CK_ATTRIBUTE_TYPE, value: Value) {
        self.state().objects.values_mut().for_each(|(template, _, _)| template.set(kind, value.clone()));
    }

    pub fn objects(&self) -> usize {
        self.state().objects.len()
    }

    /// Answers a request frame, as `Door::handle` does.
    pub fn handle(&self, frame: &[u8], out: &mut Vec<u8>) {
        let (header, body) = frame.split_first_chunk::<HEADER>().unwrap();
        let header = Header::decode(header, DEFAULT_LIMIT).unwrap();
        let call = CallId::from_number(header.call).unwrap();
        let (caller, body) = wire::decode_caller(body).unwrap();
        let mut state = self.state();
        let key = (caller.instance, header.id);
        state.calls.push((call, caller.clone()));
        if let Some(answer) = state.answered.get(&key).filter(|_| call.retry() == Retry::Once) {
            out.extend_from_slice(answer);
            return;
        }
        let mut answer = Vec::new();
        if let Err(fault) = state.dispatch(call, header.id, &caller, body, &mut answer) {
            answer.clear();
            wire::encode_fault(&mut answer, header.id, header.call, &fault);
        }
        state.acts += usize::from(call.retry() == Retry::Once);
        out.extend_from_slice(&answer);
        state.answered.insert(key, answer);
    }
}

/// The transport that ends in a vault in the same process.
pub(crate) struct InProcess(pub Arc<ScriptedVault>);

impl Transport for InProcess {
    fn exchange(&self, frame: &[u8], reply: &mut Vec<u8>, limits: Limits) -> Result<(), Link> {
        let event = self.0.state().script.pop_front();
        match event {
            None => self.0.handle(frame, reply),
            Some(Event::Lost(link)) => return Err(link),
            Some(Event::AnswerLost(link)) => {
                self.0.handle(frame, reply);
                return Err(link);
            }
            Some(Event::Silence) => {
                self.0.handle(frame, reply);
                reply.clear();
                std::thread::sleep(limits.answer.saturating_duration_since(std::time::Instant::now()));
                return Err(Link::TimedOut);
            }
            Some(Event::Fault(code)) => {
                let header = Header::decode(frame.first_chunk().unwrap(), DEFAULT_LIMIT).unwrap();
                wire::encode_fault(reply, header.id, header.call, &Fault::new(code, "as scripted"));
            }
            Some(Event::Garbage(bytes)) => reply.extend_from_slice(&bytes),
        }
        Ok(())
    }

    fn limit(&self) -> u32 {
        DEFAULT_LIMIT
    }

    fn after_fork(&self) -> Box<dyn Transport> {
        Box::new(Self(self.0.clone()))
    }
}

impl State {
    fn dispatch(
        &mut self,
        call: CallId,
        id: u64,
        caller: &Caller,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Answer<()> {
        if let Some(ticket) = &caller.ticket
            && (ticket.0[0] != self.epoch || (ticket.0[1] != self.age && call != CallId::RenewTicket))
        {
            return refuse(FaultCode::TicketExpired);
        }
        let ticket = || Ticket(Zeroizing::new(vec![self.epoch, self.age]));
        let logged_in = || LoggedIn { ticket: ticket(), expires: 0, life: self.life };
        match call {
            CallId::Hello => answer::<Hello>(out, id, body, |hello| {
                let (minor, server) = (hello.minor, "scripted".into());
                let partition = (!self.administrator).then(|| "test".into());
                Ok(Welcome {
                    minor,
                    limit: DEFAULT_LIMIT,
                    server,
                    partition,
                    renew_in: self.renew_in,
                    cluster: self.cluster.map(Into::into),
                })
            }),
            CallId::RenewCertificate => {
                let (issuer, renew_in) = (self.issuer.as_mut().unwrap(), &mut self.renew_in);
                answer::<RenewCertificate>(out, id, body, |call| {
                    let renewed = issuer(&call.request)?;
                    *renew_in = Some(1000);
                    Ok(renewed)
                })
            }
            CallId::ReadToken => answer::<ReadToken>(out, id, body, |_| Ok(token())),
            CallId::InitToken => answer::<InitToken>(out, id, body, |call| checked(&call.pin)),
            CallId::InitPin => answer::<InitPin>(out, id, body, |_| Ok(Done {})),
            CallId::SetPin => answer::<SetPin>(out, id, body, |call| {
                checked(&call.old).map(|_| PinChanged { ticket: caller.ticket.is_some().then(ticket) })
            }),
            CallId::Login => answer::<Login>(out, id, body, |call| checked(&call.pin).map(|_| logged_in())),
            CallId::RenewTicket => answer::<RenewTicket>(out, id, body, |_| Ok(logged_in())),
            CallId::Logout => answer::<Logout>(out, id, body, |_| Ok(Done {})),
            CallId::CreateObject => {
                let objects = &mut self.objects;
                answer::<CreateObject>(out, id, body, |call| {
                    let object = ObjectId(
                        *digest::digest(&digest::SHA256, &id.to_be_bytes()).as_ref().first_chunk().unwrap(),
                    );
                    let info = info(object, &call.template);
                    objects.insert(object, (call.template, caller.instance, caller.session));
                    Ok(info)
                })
            }
            CallId::DestroyObject => answer::<DestroyObject>(out, id, body, |call| {
                self.objects
                    .remove(&call.object)
                    .map(|_| Done {})
                    .ok_or_else(|| fault(FaultCode::ObjectHandleInvalid))
            }),
            CallId::DescribeObject => answer::<DescribeObject>(out, id, body, |call| {
                Ok(info(call.object, self.template(call.object)?))
            }),
            CallId::ReadAttributes => answer::<ReadAttributes>(out, id, body, |call| {
                let template = self.template(call.object)?;
                let answers = call.kinds.iter().map(|kind| match (*kind, template.value(*kind)) {
                    (CKA_VALUE, _) => strongroom_shared::message::Answer::Sensitive,
                    (_, Some(value)) => strongroom_shared::message::Answer::Value(value.clone()),
                    (_, None) => strongroom_shared::message::Answer::Absent,
                });
                Ok(Attributes { answers: answers.collect() })
            }),
            CallId::WriteAttributes => answer::<WriteAttributes>(out, id, body, |call| {
                let entry = self.objects.get_mut(&call.object);
                let (template, _, _) = entry.ok_or_else(|| fault(FaultCode::ObjectHandleInvalid))?;
                call.template.iter().for_each(|change| template.set(change.kind, change.value.clone()));
                Ok(Done {})
            }),
            CallId::FindObjects => answer::<FindObjects>(out, id, body, |call| {
                let matching = |(_, (template, _, _)): &(&ObjectId, &(Template, _, _))| {
                    call.template.iter().all(|wanted| template.value(wanted.kind) == Some(&wanted.value))
                };
                let after = |(object, _): &(&ObjectId, _)| call.after.is_none_or(|after| **object > after);
                let mut found = self.objects.iter().filter(after).filter(matching);
                let objects =
                    found.by_ref().take(PAGE).map(|(object, (template, _, _))| info(*object, template));
                Ok(Found { objects: objects.collect(), more: found.next().is_some() })
            }),
            CallId::CloseSession => {
                let objects = &mut self.objects;
                answer::<CloseSession>(out, id, body, |_| {
                    objects.retain(|_, (_, instance, session)| {
                        (*instance, *session) != (caller.instance, caller.session)
                    });
                    Ok(Done {})
                })
            }
            CallId::EndInstance => answer::<EndInstance>(out, id, body, |_| Ok(Done {})),
            CallId::Sign => answer::<Sign>(out, id, body, |call| {
                Ok(Signature { bytes: mac(&self.key(call.key)?, &call.input) })
            }),
            CallId::SignShared => answer::<SignShared>(out, id, body, |call| {
                let meant: Sign = self.meant(call.mandated);
                Ok(Signature { bytes: mac(&self.key(meant.key)?, &meant.input) })
            }),
            CallId::DestroyShared => answer::<DestroyShared>(out, id, body, |call| {
                let meant: DestroyObject = self.meant(call.mandated);
                self.objects.remove(&meant.object);
                Ok(Done {})
            }),
            CallId::GenerateShared => answer::<GenerateShared>(out, id, body, |call| {
                let text = call.mandated.text.clone();
                let meant: GenerateKeyPair = self.meant(call.mandated);
                let [public, private] = [(1, meant.public), (2, meant.private)].map(|(id, template)| {
                    let (id, info) = (ObjectId([id; 16]), info(ObjectId([id; 16]), &template));
                    self.objects.insert(id, (template, caller.instance, caller.session));
                    info
                });
                Ok(KeyPair {
                    public,
                    private,
                    certificate: self.certify.map(|certify| certify(&text).into()),
                })
            }),
            CallId::Verify => answer::<Verify>(out, id, body, |call| {
                let genuine = mac(&self.key(call.key)?, &call.input) == call.signature;
                if genuine { Ok(Done {}) } else { refuse(FaultCode::SignatureInvalid) }
            }),
            CallId::Encrypt => answer::<Encrypt>(out, id, body, |call| {
                aes(&self.key(call.key)?, call.mechanism, &call.params, &call.input, Way::Encrypt)
            }),
            CallId::Decrypt => answer::<Decrypt>(out, id, body, |call| {
                aes(&self.key(call.key)?, call.mechanism, &call.params, &call.input, Way::Decrypt)
            }),
            CallId::GenerateRandom => {
                answer::<GenerateRandom>(out, id, body, |call| Ok(bytes(vec![0xa5; call.length as usize])))
            }
            _ => refuse(FaultCode::Internal),
        }
    }

    fn meant<C: Call>(&mut self, mandated: Mandated) -> C {
        let mandate: Mandate = wire::decode_body(&mandated.text).unwrap();
        self.mandates.push(mandated);
        assert_eq!(mandate.call, C::ID as u16);
        wire::decode_body(&mandate.body).unwrap()
    }

    fn template(&self, object: ObjectId) -> Answer<&Template> {
        let entry = self.objects.get(&object).ok_or_else(|| fault(FaultCode::ObjectHandleInvalid))?;
        Ok(&entry.0)
    }

    fn key(&self, object: ObjectId) -> Answer<Vec<u8>> {
        let (template, _, _) = self.objects.get(&object).ok_or_else(|| fault(FaultCode::KeyHandleInvalid))?;
        Ok(template.bytes(CKA_VALUE).unwrap_or_default().to_vec())
    }
}

fn answer<C: Call>(
    out: &mut Vec<u8>,
    id: u64,
    body: &[u8],
    act: impl FnOnce(C) -> Answer<C::Reply>,
) -> Answer<()> {
    let reply = act(wire::decode_body(body).unwrap())?;
    wire::encode_reply::<C>(out, id, &reply);
    Ok(())
}

fn fault(code: FaultCode) -> Fault {
    Fault::new(code, "")
}

fn refuse<T>(code: FaultCode) -> Answer<T> {
    Err(fault(code))
}

fn checked(pin: &Pin) -> Answer<Done> {
    if pin.0.expose() == PIN { Ok(Done {}) } else { refuse(FaultCode::PinIncorrect) }
}

fn bytes(bytes: Vec<u8>) -> Bytes {
    Bytes { bytes: SecretBytes(bytes.into()) }
}

fn token() -> Token {
    Token {
        label: "scripted".into(),
        serial: "0123456789abcdef".into(),
        initialized: true,
        user_pin_set: true,
        user: Tries::Last,
        security_officer: Tries::All,
        min_pin: 4,
        max_pin: 64,
    }
}

fn info(id: ObjectId, template: &Template) -> ObjectInfo {
    ObjectInfo {
        id,
        class: template.ulong(CKA_CLASS).unwrap_or(CKO_DATA),
        key_type: template.ulong(CKA_KEY_TYPE),
        bits: template.bytes(CKA_VALUE).map_or(0, |value| value.len() as u32 * 8),
        usage: Usage::of(template),
        token: template.bool(CKA_TOKEN).unwrap_or(false),
        private: template.bool(CKA_PRIVATE).unwrap_or(false),
        size: 100,
        shares: template
            .ulong(CKA_STRONGROOM_THRESHOLD)
            .map(|threshold| Shares { threshold: threshold as u8, parties: 3 }),
        kept_from: kept_from(template),
    }
}

fn kept_from(template: &Template) -> Option<Vec<u64>> {
    let Some(Value::Mechanisms(allowed)) = template.value(CKA_ALLOWED_MECHANISMS) else { return None };
    let numbers = Mechanism::ALL.iter().map(|mechanism| mechanism.row().number);
    Some(numbers.filter(|number| !allowed.contains(number)).collect())
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Encrypt,
    Decrypt,
}

/// AES modes out of single blocks, so that what the provider chains is checked against something else than chains.
fn aes(key: &[u8], mechanism: u64, params: &Params, input: &[u8], way: Way) -> Answer<Bytes> {
    let mechanism = Mechanism::from_number(mechanism).unwrap();
    let mut input = input.to_vec();
    if mechanism == Mechanism::AesCbcPad && way == Way::Encrypt {
        let padding = 16 - input.len() % 16;
        input.resize(input.len() + padding, padding as u8);
    }
    match params {
        Params::Iv(iv) => {
            if !input.len().is_multiple_of(16) {
                return refuse(FaultCode::DataLengthRange);
            }
            let mut chain = *iv;
            let mut output = Vec::new();
            for piece in input.chunks_exact(16) {
                let piece: [u8; 16] = piece.try_into().unwrap();
                let out = match way {
                    Way::Encrypt => block(key, xor(piece, chain), way),
                    Way::Decrypt => xor(block(key, piece, way), chain),
                };
                chain = if way == Way::Encrypt { out } else { piece };
                output.extend_from_slice(&out);
            }
            if mechanism == Mechanism::AesCbcPad && way == Way::Decrypt {
                let padding = usize::from(*output.last().unwrap());
                if padding == 0 || padding > 16 {
                    return refuse(FaultCode::EncryptedDataInvalid);
                }
                output.truncate(output.len() - padding);
            }
            Ok(bytes(output))
        }
        Params::Ctr { block: start, .. } => {
            let start = u128::from_be_bytes(*start);
            let pieces = input.chunks(16).enumerate().flat_map(|(index, piece)| {
                let stream = block(key, (start + index as u128).to_be_bytes(), Way::Encrypt);
                piece.iter().zip(stream).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>()
            });
            Ok(bytes(pieces.collect()))
        }
        // Not GCM, but of its shape: a copy and a tag.
        Params::Gcm { tag_bits, .. } => {
            let tag = *tag_bits as usize / 8;
            if way == Way::Encrypt {
                input.resize(input.len() + tag, 0x7a);
                return Ok(bytes(input));
            }
            let text =
                input.len().checked_sub(tag).ok_or_else(|| fault(FaultCode::EncryptedDataLengthRange))?;
            let genuine = input.split_off(text).iter().all(|byte| *byte == 0x7a);
            if genuine { Ok(bytes(input)) } else { refuse(FaultCode::EncryptedDataInvalid) }
        }
        Params::None | Params::Pss { .. } | Params::Oaep { .. } | Params::Path(_) => {
            refuse(FaultCode::MechanismParamInvalid)
        }
    }
}

fn xor(left: [u8; 16], right: [u8; 16]) -> [u8; 16] {
    (u128::from_be_bytes(left) ^ u128::from_be_bytes(right)).to_be_bytes()
}

fn block(key: &[u8], mut block: [u8; 16], way: Way) -> [u8; 16] {
    let key = || cipher::UnboundCipherKey::new(&cipher::AES_128, key).unwrap();
    match way {
        Way::Encrypt => {
            cipher::EncryptingKey::ecb(key()).unwrap().encrypt(&mut block).unwrap();
        }
        Way::Decrypt => {
            let decrypting = cipher::DecryptingKey::ecb(key()).unwrap();
            decrypting.decrypt(&mut block, cipher::DecryptionContext::None).unwrap();
        }
    }
    block
}
