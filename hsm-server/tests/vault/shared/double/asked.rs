//! The bad node where honest ones ask it: they have it greet them, sign, and say what it has.

use std::collections::BTreeSet;

use strongroom_shared::fault::FaultCode;

use super::*;

/// How it is reached.
pub struct Ear {
    pub double: Double,
    pub document: Mutex<Vec<u8>>,
    /// By name: the keys that others seal with.
    pub callers: BTreeMap<String, [u8; 32]>,
    pub sessions: Mutex<Vec<Arc<Session>>>,
}

impl Ear {
    /// Where the nodes of a house find it, from now on.
    pub fn new(double: Double, document: Vec<u8>, house: &House) -> Self {
        let callers = house.nodes.iter().map(|node| (node.name.clone(), node.member().sealing)).collect();
        Self { double, document: Mutex::new(document), callers, sessions: Mutex::default() }
    }

    /// The document that it goes by.
    pub fn document(&self) -> Vec<u8> {
        self.document.lock().unwrap().clone()
    }

    /// Answers a frame of an honest node, whose questions it considers so.
    fn answer(&self, caller: &str, frame: &[u8], consider: impl Fn(&Question) -> Reply) -> Vec<u8> {
        let header = Header::decode(frame[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
        let (_, body) = decode_caller(&frame[HEADER..]).unwrap();
        let mut reply = Vec::new();
        let document = Document::read(&self.document()).unwrap();
        match CallId::from_number(header.call).unwrap() {
            CallId::GreetNode => {
                let (version, digest) = (document.membership().version, document.digest().to_vec());
                let greeting = NodeGreeting { version, digest: Some(digest.into()) };
                encode_reply::<GreetNode>(&mut reply, header.id, &greeting);
            }
            CallId::ShakeHands => {
                let call: ShakeHands = decode_body(body).unwrap();
                let (own, other) = (&self.double.sealing, &self.callers[caller]);
                let pair = noise::Pair { document: document.digest(), own, other };
                let random = noise::random_source(|bytes| aws_lc_rs::rand::fill(bytes).unwrap());
                let (session, message) = pair.respond(random, &call.message).unwrap();
                let mut sessions = self.sessions.lock().unwrap();
                sessions.push(Arc::new(session));
                let session = sessions.len() as u64 - 1;
                encode_reply::<ShakeHands>(&mut reply, header.id, &HandsShaken { session, message });
            }
            CallId::SealedCall => {
                let call: SealedCall = decode_body(body).unwrap();
                let session = Arc::clone(&self.sessions.lock().unwrap()[call.session as usize]);
                let text = session.open(call.counter, &call.sealed).unwrap();
                // What it does not know it says yes to.
                let said = decode_body(&text).map_or(Reply::Done, |question| consider(&question));
                let sealed = session.seal(call.counter, &minicbor::to_vec(said).unwrap()).unwrap();
                encode_reply::<SealedCall>(&mut reply, header.id, &SealedReply { sealed });
            }
            other => panic!("{}", other.name()),
        }
        reply
    }
}

/// The bad node as one that says what it likes of a key's shares, and takes part in nothing.
pub struct Liar {
    pub ear: Ear,
    /// What it says that it has.
    pub account: Mutex<Account>,
    /// What it was asked to take part in.
    pub asked: Mutex<Vec<Task>>,
}

impl Liar {
    /// Sits at the place of the bad node in a house.
    pub fn sit(double: Double, document: Vec<u8>, house: &House, account: Account) -> Arc<Self> {
        let id = double.member(&house.nodes[0].said.authority).id;
        let ear = Ear::new(double, document, house);
        let liar = Arc::new(Self { ear, account: Mutex::new(account), asked: Mutex::default() });
        let answering = Arc::clone(&liar);
        let answer: Answering = Arc::new(move |caller, frame| {
            answering.ear.answer(caller, frame, |asked| answering.consider(asked))
        });
        house.net.doubles.lock().unwrap().insert(id, answer);
        liar
    }

    fn consider(&self, question: &Question) -> Reply {
        match question {
            Question::Vouch => {
                Reply::Vouched(Document::read(&self.ear.document()).unwrap().membership().version, 0)
            }
            Question::Certificate { .. } => Reply::Certificate(self.account.lock().unwrap().clone()),
            Question::Bans(_) => Reply::Bans(KnownBans { keys: Vec::new(), more: false }),
            Question::Begin(begin) => {
                self.asked.lock().unwrap().push(begin.task.clone());
                Reply::Refused(Fault::new(FaultCode::Forbidden, "I would rather not"))
            }
            _ => Reply::Done,
        }
    }
}

/// What is wrong with what a bad signer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoils {
    /// Its part of the signature.
    Part,
    /// Its letters to the other signers: they are garbage.
    Letters,
    /// It is missing, and the bad node says that it is done.
    Everything,
    /// The same in the second round.
    Rest,
    /// It says that it knows of bans, and tells none.
    Behind,
    /// It says that its share is of an earlier epoch, whatever it was handed.
    Elsewhen,
    /// It gives up, and accuses nobody.
    GivesUp,
    /// The same, and accuses one that has no part in it.
    Slanders,
    /// What its first letters are bound to, inside an envelope of this ceremony.
    Binding,
    /// It shakes hands with nobody but node a.
    Sessions,
    /// It tells nobody but node a which bans it knows.
    Bans,
    /// Its letter to the coordinator is sealed, in a session that nobody knows.
    Seals,
}

/// The bad node as a signer, who is asked by honest coordinators.
pub struct Signer {
    pub ear: Ear,
    pub share: Share,
    pub spoils: Spoils,
    /// How often it was asked to sign.
    pub asked: AtomicUsize,
    /// What it says of a key that was to be abandoned.
    pub stand: Mutex<Option<Stand>>,
}

impl Signer {
    /// Answers a frame of an honest node.
    pub fn answer(&self, caller: &str, frame: &[u8]) -> Vec<u8> {
        let header = Header::decode(frame[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
        let shakes = header.call == CallId::ShakeHands as u16;
        if self.spoils == Spoils::Sessions && shakes && caller != "a" {
            let mut reply = Vec::new();
            encode_fault(&mut reply, header.id, header.call, &unknown());
            return reply;
        }
        self.ear.answer(caller, frame, |question| self.consider(caller, question))
    }

    fn consider(&self, caller: &str, question: &Question) -> Reply {
        if let Question::Bans(_) = question {
            if self.spoils == Spoils::Bans && caller != "a" {
                return Reply::Refused(unknown());
            }
            return Reply::Bans(KnownBans { keys: Vec::new(), more: false });
        }
        if let Question::Certificate { .. } = question {
            return Reply::Certificate(Account { stand: *self.stand.lock().unwrap(), ..Account::default() });
        }
        if let Question::MayAbandon(order) = question {
            return Reply::Promised(self.ear.double.promise(order));
        }
        let says = |parcels, end| Reply::Progress(Progress { parcels, more: false, end });
        let begin = match question {
            Question::Begin(begin) => begin,
            Question::Step { .. } if self.spoils == Spoils::Rest => {
                return says(Vec::new(), Some(End::Signed));
            }
            Question::Step { .. } => return says(Vec::new(), None),
            _ => return Reply::Done,
        };
        self.asked.fetch_add(1, Ordering::Relaxed);
        let Task::Sign { signers, .. } = &begin.task else { panic!() };
        let (me, epoch) = (self.share.party(), begin.epoch);
        let ends = |end| says(Vec::new(), Some(end));
        let gives_up = |suspects| {
            let reason = "I have had enough".into();
            ends(End::Aborted(Verdict { reason, culprits: BTreeSet::new(), suspects, ban: None }))
        };
        match self.spoils {
            Spoils::Everything => return ends(End::Signed),
            Spoils::Behind => return ends(End::Behind(Vec::new())),
            Spoils::Elsewhen => {
                let warrant = Warrant { certificate: Vec::new(), order: None };
                return ends(End::Elsewhen { epoch: Epoch(epoch.0.saturating_sub(1)), warrant });
            }
            Spoils::GivesUp => return gives_up(BTreeSet::new()),
            Spoils::Slanders => {
                let absent = (1..).map(party).find(|party| !signers.contains(party));
                return gives_up(absent.into_iter().collect());
            }
            Spoils::Sessions | Spoils::Bans => return says(Vec::new(), None),
            Spoils::Seals => {
                let [to] = begin.parcels.iter().map(|parcel| parcel.from).collect::<Vec<_>>()[..] else {
                    return says(Vec::new(), None);
                };
                let content = Content::Sealed(Sealed { session: 7, counter: 0, sealed: vec![7; 64] });
                return says(vec![Parcel { from: me, to: Some(to), content }], None);
            }
            Spoils::Part | Spoils::Letters | Spoils::Rest | Spoils::Binding => {}
        }
        let input = match self.share.public().scheme() {
            SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 => openssl::sha::sha256(MESSAGE).to_vec(),
            SchemeId::Ed25519 | SchemeId::Bip340 => MESSAGE.to_vec(),
        };
        let signing = Signing { signers: signers.clone(), input };
        let setup = Setup { key: begin.key, id: begin.id, epoch: begin.epoch, me };
        let (ceremony, mut said) = sign(&self.share, &signing, &setup).unwrap();
        let others: Vec<Party> = signers.iter().copied().filter(|signer| *signer != me).collect();
        if self.spoils == Spoils::Binding {
            said.iter_mut().for_each(|message| unbind(&mut message.bytes));
        }
        let mut parcels = parcels(me, &said, &others);
        if matches!(self.spoils, Spoils::Rest | Spoils::Binding) {
            return says(parcels, None);
        }
        let heard = begin.parcels.iter().map(|parcel| match &parcel.content {
            Content::Plain(bytes) => Incoming { from: parcel.from, bytes: bytes.clone() },
            Content::Sealed(_) => panic!("sealed by the coordinator itself"),
        });
        let Step::Done(held, _) = ceremony.step(heard.collect()) else { panic!("it waits") };
        let mut part = held.release().bytes.to_vec();
        // The signature share stands at the end, its highest byte last.
        let place = part.len() - 2;
        if self.spoils == Spoils::Part {
            part[place] ^= 1;
        } else {
            parcels.iter_mut().for_each(|parcel| parcel.content = Content::Plain(b"garbage".to_vec()));
        }
        parcels.push(Parcel { from: me, to: None, content: Content::Plain(part) });
        says(parcels, Some(End::Signed))
    }
}

fn unknown() -> Fault {
    Fault::new(FaultCode::Forbidden, "I do not know you")
}

/// Binds a first letter of DKLs23 to another signature than its envelope: two numbers of parties stand before what it is
/// bound to, and the letter stands at the end of the envelope.
fn unbind(envelope: &mut [u8]) {
    let mut decoder = minicbor::Decoder::new(envelope);
    assert_eq!(decoder.array().unwrap(), Some(8));
    (0..7).for_each(|_| decoder.skip().unwrap());
    let place = envelope.len() - decoder.bytes().unwrap().len();
    envelope[place + 2] ^= 1;
}
