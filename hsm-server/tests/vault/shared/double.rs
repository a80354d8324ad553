//! A bad node: a member of the cluster that coordinates, holds a real share, and says what it likes. It speaks the
//! nodes' language as it is written down here once more.

mod asked;
mod relaying;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use minicbor::bytes::ByteVec;
use strongroom_server::{
    certificates::fingerprint,
    cluster::{
        Document, Member, NodeId,
        noise::{self, Session},
        order::{Order, SignedOrder},
    },
    crypto::threshold::{
        Ceremony, CeremonyId, Committee, Epoch, Incoming, KeyId, Outcome, Outgoing, Party, SchemeId, Setup,
        Share, Signing, Step, To, generate_key, refresh, sign,
    },
};
use strongroom_shared::{
    fault::Fault,
    secret::Secret,
    shares::Claim,
    wire::{
        HEADER, Header, Kind as Frame, decode_body, decode_caller, encode_fault, encode_reply, encode_request,
    },
};

use self::relaying::{last, parcels, run};
pub use self::{asked::*, relaying::Delivery, words::*};
use super::*;

/// The first letter of a ceremony, spoilt.
pub type Spoil = fn(&mut Vec<u8>);

/// The bad node: it sits at the last seat of three.
pub struct Double {
    certificate: Vec<u8>,
    identity: Ed25519KeyPair,
    sealing: Secret<[u8; 32]>,
    /// How it hands letters on.
    pub delivery: Delivery,
    /// How many letters have been overtaken by others.
    pub overtaken: AtomicUsize,
}

/// A session with an honest node.
pub struct Talk<'a> {
    node: &'a Node,
    double: &'a Double,
    number: u64,
    session: Session,
}

pub fn party(number: u8) -> Party {
    Party::new(number).unwrap()
}

impl Double {
    pub fn new() -> Self {
        Self {
            certificate: b"the certificate of z".to_vec(),
            identity: Ed25519KeyPair::from_seed_unchecked(&[77; 32]).unwrap(),
            sealing: Secret::new([78; 32]),
            delivery: Delivery::default(),
            overtaken: AtomicUsize::new(0),
        }
    }

    pub fn member(&self, authority: &[u8]) -> Member {
        Member {
            name: "z".into(),
            address: "127.0.0.1:7373".into(),
            server_name: "localhost".into(),
            authority: authority.to_vec(),
            id: NodeId(fingerprint(&self.certificate)),
            identity: public(&self.identity),
            sealing: noise::public_key(&self.sealing).unwrap(),
        }
    }

    fn call<C: Call>(&self, node: &Node, call: &C) -> Result<C::Reply, Fault> {
        let mut frame = Vec::new();
        encode_request(&mut frame, 1, &Caller::default(), call);
        let reply = deliver(&node.vault, &self.certificate, &frame).unwrap();
        let header = Header::decode(reply[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
        match header.kind {
            Frame::Fault => Err(decode_body(&reply[HEADER..]).unwrap()),
            Frame::Reply | Frame::Request => Ok(decode_body(&reply[HEADER..]).unwrap()),
        }
    }

    /// Shakes hands with an honest node.
    pub fn meet<'a>(&'a self, node: &'a Node, document: &[u8]) -> Talk<'a> {
        let document = Document::read(document).unwrap();
        let other = node.member().sealing;
        let pair = noise::Pair { document: document.digest(), own: &self.sealing, other: &other };
        let random = noise::random_source(|bytes| aws_lc_rs::rand::fill(bytes).unwrap());
        let (waiting, message) = pair.initiate(random).unwrap();
        let shaken = self.call(node, &ShakeHands { message }).unwrap();
        let session = waiting.finish(&shaken.message).unwrap();
        Talk { node, double: self, number: shaken.session, session }
    }

    /// Says that it must not sign together with this one any more.
    pub fn ban(&self, key: KeyId, epoch: Epoch, against: Party) -> SignedBan {
        let ban = Ban { key, epoch, reporter: party(3), against };
        let text = [b"strongroom ban 1\0", &[7; 16][..], &minicbor::to_vec(&ban).unwrap()].concat();
        SignedBan { ban, signature: self.identity.sign(&text).as_ref().try_into().unwrap() }
    }

    /// Its promise to take no certificate of the key of an order.
    pub fn promise(&self, signed: &SignedOrder) -> Promised {
        let Order { cluster, partition, key, epoch, .. } = Order::from_bytes(&signed.text).unwrap();
        let order = ByteVec::from(openssl::sha::sha256(&signed.text).to_vec());
        let text = minicbor::to_vec((cluster, partition, key, epoch, order)).unwrap();
        let signature = self.identity.sign(&[b"strongroom abandon 1\0", text.as_slice()].concat());
        let node = public(&self.identity).to_vec().into();
        Promised { node, signature: signature.as_ref().to_vec().into() }
    }

    /// Its word for a claim, under another key of its own too: nodes that are none.
    pub fn certify(&self, claim: &Claim, seeds: &[u8]) -> Vec<u8> {
        let mut claim = claim.clone();
        let pairs = seeds.iter().map(|seed| Ed25519KeyPair::from_seed_unchecked(&[*seed; 32]).unwrap());
        let pairs: Vec<_> = pairs.collect();
        claim.seats = pairs.iter().map(public).collect();
        let claim = minicbor::to_vec(claim).unwrap();
        let text = Claim::to_sign(&claim);
        let signatures = pairs.iter().map(|pair| pair.sign(&text).as_ref().to_vec().into()).collect();
        minicbor::to_vec(Claimed { claim, signatures }).unwrap()
    }

    /// What a key of its own would be claimed as, under the id of another: it holds both shares.
    pub fn pretend(&self, like: &Claim, epoch: Epoch) -> Claim {
        let id = CeremonyId([like.private.0[0] ^ 0x77; 32]);
        let setup = |me| Setup { key: KeyId(like.private.0), id, epoch, me };
        let begin = |me| generate_key(SchemeId::Ed25519, Committee::new(2, 2).unwrap(), &setup(me)).unwrap();
        let [(mut one, mut from_one), (mut other, mut from_other)] = [party(1), party(2)].map(begin);
        let heard = |from, said: Vec<Outgoing>| -> Vec<Incoming> {
            said.iter().map(|message| Incoming { from, bytes: message.bytes.to_vec() }).collect()
        };
        loop {
            let to_one = heard(party(2), std::mem::take(&mut from_other));
            let to_other = heard(party(1), std::mem::take(&mut from_one));
            match (one.step(to_one), other.step(to_other)) {
                (Step::Continue(next, said), Step::Continue(others, answered)) => {
                    (one, from_one, other, from_other) = (next, said, others, answered);
                }
                (Step::Done(made, _), _) | (_, Step::Done(made, _)) => {
                    return Claim { ready: made.ready.to_bytes(), ..like.clone() };
                }
                _ => panic!("a ceremony with oneself"),
            }
        }
    }

    /// Makes a key of which so many sign with the honest nodes at the first seats, keeps its own share, and hands the
    /// certificate to them.
    pub fn make(
        &self,
        talks: &[Talk<'_>],
        (scheme, threshold): (SchemeId, u8),
        key: [u8; 16],
        mandated: &Mandated,
    ) -> Share {
        self.finish(talks, self.begin_key(talks, (scheme, threshold), key, mandated))
    }

    /// Makes a key, and keeps to itself that all have their shares.
    pub fn begin_key(
        &self,
        talks: &[Talk<'_>],
        (scheme, threshold): (SchemeId, u8),
        key: [u8; 16],
        mandated: &Mandated,
    ) -> (Option<Outcome>, Vec<Statement>) {
        let id = CeremonyId([key[0]; 32]);
        let me = last(talks);
        let setup = Setup { key: KeyId(key), id, epoch: Epoch(0), me };
        let started = generate_key(scheme, Committee::new(threshold, me.number()).unwrap(), &setup).unwrap();
        let seats = talks.iter().map(|talk| talk.node.name.clone()).chain(["z".to_owned()]).collect();
        let task =
            Task::Generate { mandated: mandated.clone(), public: ObjectId([key[0] ^ 0xff; 16]), seats };
        let begin = Begin { id, key: KeyId(key), epoch: Epoch(0), task, parcels: Vec::new() };
        run(talks, started, me, &begin, |_| ()).unwrap()
    }

    /// Makes other shares of a key with the honest nodes, as it was ordered.
    pub fn refresh(&self, talks: &[Talk<'_>], share: &Share, begin: &Begin) -> Share {
        self.finish(talks, self.refresh_while(talks, share, begin, || ()).unwrap())
    }

    /// The same up to where all have their shares, if they get them, while something else happens.
    pub fn refresh_while(
        &self,
        talks: &[Talk<'_>],
        share: &Share,
        begin: &Begin,
        mut happens: impl FnMut(),
    ) -> Result<(Option<Outcome>, Vec<Statement>), Fault> {
        let me = last(talks);
        let setup = Setup { key: begin.key, id: begin.id, epoch: begin.epoch, me };
        run(talks, refresh(share, &setup).unwrap(), me, begin, |_| happens())
    }

    /// The certificate, with what the honest nodes have signed and its own word.
    pub fn complete(&self, statements: &[Statement]) -> Claimed {
        let claim = statements[0].claim.clone();
        let own = self.identity.sign(&[b"strongroom shares 2\0", claim.as_slice()].concat());
        let others = statements.iter().map(|statement| statement.signature.to_vec().into());
        let signatures: Vec<ByteVec> = others.chain([own.as_ref().to_vec().into()]).collect();
        Claimed { claim, signatures }
    }

    /// Signs what the honest nodes have signed, and hands the certificate to them.
    fn finish(&self, talks: &[Talk<'_>], (outcome, statements): (Option<Outcome>, Vec<Statement>)) -> Share {
        let mut forged = self.complete(&statements);
        forged.signatures.swap(0, 1);
        for talk in talks {
            let fault = talk.ask(&Question::Activate(minicbor::to_vec(&forged).unwrap(), None)).unwrap_err();
            assert!(fault.detail.contains("not all nodes have signed"), "{fault}");
        }
        forged.signatures.swap(0, 1);
        for talk in talks {
            talk.ask(&Question::Activate(minicbor::to_vec(&forged).unwrap(), None)).unwrap();
        }
        outcome.unwrap().share.unwrap()
    }

    /// Its own word that it would destroy a key, and that of every honest node that gives it.
    pub fn agreements(&self, talks: &[Talk<'_>], mandated: &Mandated) -> Vec<Agreement> {
        let Mandate { cluster, .. } = minicbor::decode(&mandated.text).unwrap();
        let mandate = openssl::sha::sha256(&mandated.text);
        let said = minicbor::to_vec(WouldDestroy {
            cluster: strongroom_server::cluster::document::ClusterId(cluster),
            mandate,
        })
        .unwrap();
        let own = self.identity.sign(&[b"strongroom destroy 1\0", said.as_slice()].concat());
        let own = Agreement { node: public(&self.identity), signature: own.as_ref().try_into().unwrap() };
        let agree = |talk: &Talk<'_>| match talk.ask(&Question::MayDestroy(mandated.clone())) {
            Ok(Reply::WouldDestroy(agreement)) => Some(agreement),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        };
        [own].into_iter().chain(talks.iter().filter_map(agree)).collect()
    }

    /// Has an honest node destroy what it has of a key, with the word of everybody who gives it.
    pub fn destroy(&self, talks: &[Talk<'_>], at: usize, mandated: &Mandated) -> Result<(), Fault> {
        let agreements = self.agreements(talks, mandated);
        talks[at].ask(&Question::Destroy { mandated: mandated.clone(), agreements }).map(drop)
    }

    /// What it says a descendant is, signed with its own key at every seat, or by nodes that are none.
    pub fn certify_child(&self, claim: &ChildClaim, seeds: &[u8]) -> Vec<u8> {
        let mut claim = claim.clone();
        let strangers = seeds.iter().map(|seed| Ed25519KeyPair::from_seed_unchecked(&[*seed; 32]).unwrap());
        let strangers: Vec<_> = strangers.collect();
        let pairs: Vec<_> = [&self.identity; 2].into_iter().chain(&strangers).collect();
        claim.seats = pairs.iter().map(|pair| public(pair)).collect();
        let claim = minicbor::to_vec(claim).unwrap();
        let text = [b"strongroom child 1\0", claim.as_slice()].concat();
        let signatures = pairs.iter().map(|pair| pair.sign(&text).as_ref().to_vec().into()).collect();
        minicbor::to_vec(Claimed { claim, signatures }).unwrap()
    }

    /// The descendant that a certificate is of.
    pub fn child_claim(certificate: &[u8]) -> ChildClaim {
        let whole: Claimed = minicbor::decode(certificate).unwrap();
        minicbor::decode(&whole.claim).unwrap()
    }

    /// The same certificate with another claim, or with these signatures of it.
    pub fn respell(
        certificate: &[u8],
        change: impl FnOnce(&mut Vec<u8>),
        signatures: impl FnOnce(&mut Vec<ByteVec>),
    ) -> Vec<u8> {
        let mut whole: Claimed = minicbor::decode(certificate).unwrap();
        change(&mut whole.claim);
        signatures(&mut whole.signatures);
        minicbor::to_vec(whole).unwrap()
    }

    /// Has the honest nodes agree to a descendant, and hands the certificate to them; that is what it gives.
    pub fn derive(&self, talks: &[Talk<'_>], mandated: &Mandated) -> Vec<u8> {
        let agree = |talk: &Talk<'_>| match talk.ask(&Question::MayDerive(mandated.clone())) {
            Ok(Reply::Agreed(statement)) => statement,
            other => panic!("{other:?}"),
        };
        let statements: Vec<_> = talks.iter().map(agree).collect();
        // A lost answer is asked for again.
        assert_eq!(agree(&talks[0]).signature, statements[0].signature);
        let claim = statements[0].claim.clone();
        let own = self.identity.sign(&[b"strongroom child 1\0", claim.as_slice()].concat());
        let others = statements.iter().map(|statement| statement.signature.to_vec().into());
        let signatures: Vec<ByteVec> = others.chain([own.as_ref().to_vec().into()]).collect();
        let whole = Claimed { claim, signatures };
        let mut swapped = whole.clone();
        swapped.signatures.swap(0, 1);
        let mut short = whole.clone();
        short.signatures.pop();
        let mut other = whole.clone();
        *other.claim.last_mut().unwrap() ^= 1;
        for talk in talks {
            for (forged, hint) in
                [(&swapped, "not all nodes"), (&short, "not all nodes"), (&other, "no descendant waits")]
            {
                let fault = talk.ask(&Question::Derive(minicbor::to_vec(forged).unwrap())).unwrap_err();
                assert!(fault.detail.contains(hint), "{fault}");
            }
            talk.ask(&Question::Derive(minicbor::to_vec(&whole).unwrap())).unwrap();
        }
        minicbor::to_vec(&whole).unwrap()
    }

    /// Signs with one honest node, whose first letter is spoilt on its way. How it ended there.
    pub fn sign(
        &self,
        talk: &Talk<'_>,
        share: &Share,
        (id, input): ([u8; 32], &[u8]),
        begin: &Begin,
        spoil: Spoil,
    ) -> Result<Progress, Fault> {
        let Task::Sign { signers, .. } = &begin.task else { panic!() };
        let signing = Signing { signers: signers.clone(), input: input.to_vec() };
        let (epoch, me) = (share.public().epoch(), party(3));
        let setup = Setup { key: share.public().key(), id: CeremonyId(id), epoch, me };
        let (mut ceremony, mut outgoing) = sign(share, &signing, &setup).unwrap();
        let mut question = Question::Begin(begin.clone());
        loop {
            let Reply::Progress(progress) = talk.ask(&question)? else { panic!("no progress") };
            if progress.end.is_some() {
                return Ok(progress);
            }
            for message in &mut outgoing {
                let mut text = message.bytes.to_vec();
                spoil(&mut text);
                *message.bytes = text;
            }
            let parcels = parcels(me, &outgoing, &[party(1), party(2)]);
            question = Question::Step { id: CeremonyId(id), parcels };
            let plain = progress.parcels.iter().filter_map(|parcel| match &parcel.content {
                Content::Plain(bytes) if parcel.to == Some(me) => {
                    Some(Incoming { from: parcel.from, bytes: bytes.clone() })
                }
                Content::Plain(_) | Content::Sealed(_) => None,
            });
            match ceremony.step(plain.collect()) {
                Step::Continue(going, more) => (ceremony, outgoing) = (going, more),
                Step::Done(_, _) | Step::Abort(_) | Step::Refused(..) => panic!("it ended at the double"),
            }
        }
    }
}

impl Talk<'_> {
    pub fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let counter = self.session.number();
        let sealed = self.session.seal(counter, &minicbor::to_vec(question).unwrap()).unwrap();
        let call = SealedCall { session: self.number, counter, sealed };
        let sealed = self.double.call(self.node, &call)?.sealed;
        assert!(!sealed.is_empty(), "the session has ended");
        match decode_body(&self.session.open_answer(counter, &sealed).unwrap()).unwrap() {
            Reply::Refused(fault) => Err(fault),
            reply => Ok(reply),
        }
    }
}
