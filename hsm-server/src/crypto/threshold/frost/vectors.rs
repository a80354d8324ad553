//! RFC 9591, appendix E.1: two of three sign with Ed25519, and every byte is the standard's.

use std::collections::BTreeMap;

use frost_core::{
    keys::SigningShare,
    round1::{Nonce, SigningNonces},
};

use super::*;
use crate::crypto::threshold::{
    Ceremony, CeremonyId, Committee, Epoch, Held, Incoming, KeyId, Setup, Step, To, envelope::Purpose,
};

const PUBLIC_KEY: &str = "15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673";
const SHARES: [&str; 3] = [
    "929dcc590407aae7d388761cddb0c0db6f5627aea8e217f4a033f2ec83d93509",
    "a91e66e012e4364ac9aaa405fcafd370402d9859f7b6685c07eed76bf409e80d",
    "d3cb090a075eb154e82fdb4b3cb507f110040905468bb9c46da8bdea643a9a02",
];
/// Of parties 1 and 3: hiding, binding.
const NONCES: [(u8, &str, &str); 2] = [
    (
        1,
        "ef6599dea4010581a72b3018c37c29a4341d7cab0773e8687ca74dcf14009701",
        "2baadfa0c69aa60d517ad4751de372a73f9d89cfc39026601f18458cdec12605",
    ),
    (
        3,
        "80f8d9a4b8f9366e1a0b618107c907cd3ee29fa9bb40b4691cc1bde696240005",
        "2610b664a5a187b4855e87d2ff485bebdf043dc2f161fcd4854cd01dc0276404",
    ),
];
const SIGNATURE: &str = "154fb694ee7fcb37bf2381d94488c2a84b03b3352ad085feca81ad26d45852b7\
                         ecfe971ce4da95c4a95db93ac376b053897fca212ef85f99cf696bffeb178f07";

#[test]
fn the_signature_is_that_of_the_standard() {
    let committee = Committee::new(2, 3).unwrap();
    let me = |number| Party::new(number).unwrap();
    let setup = |me| Setup { key: KeyId([1; 16]), id: CeremonyId([2; 32]), epoch: Epoch(1), me };
    let scalar = |number: u8| bytes(SHARES[usize::from(number) - 1]);
    let context = Context {
        scheme: SchemeId::Ed25519,
        key: KeyId([1; 16]),
        epoch: Epoch(1),
        me: me(1),
        committee,
        session: [0; 32],
    };
    let verifying = (1..=3).map(|number| {
        let scalar = Edwards::scalar(&scalar(number)).unwrap();
        Edwards::point_bytes(&Edwards::base(&scalar))
    });
    let public = context.public(bytes(PUBLIC_KEY), verifying, None);
    public.check().unwrap();

    let signing = Signing { signers: [me(1), me(3)].into(), input: b"test".to_vec() };
    let terms = Terms::new(&setup(me(1)), &Purpose::Sign, 0u8);
    let mut signers: BTreeMap<Party, (Ceremony<Held>, Vec<Incoming>)> = BTreeMap::new();
    for (number, hiding, binding) in NONCES {
        let secret = Arc::new(Secret::<Ed25519>::new(&public, me(number), &scalar(number)).unwrap());
        let share_of =
            |hexadecimal| SigningShare::<Ed25519>::deserialize(&bytes(hexadecimal)).unwrap().serialize();
        let nonce = |hexadecimal| Nonce::deserialize(&share_of(hexadecimal)).unwrap();
        let nonces = SigningNonces::from_nonces(nonce(hiding), nonce(binding));
        let begin = || sign::begin_with(me(number), &secret, nonces, &signing, terms);
        let (ceremony, outgoing) =
            Ceremony::begin(terms, To::Party(me(number)), signing.signers.clone(), begin).unwrap();
        let said = outgoing.iter().map(|said| Incoming { from: me(number), bytes: said.bytes.to_vec() });
        signers.insert(me(number), (ceremony, said.collect()));
    }
    let mut said: BTreeMap<Party, Vec<Incoming>> = BTreeMap::new();
    let mut begun = Vec::new();
    for (party, (ceremony, outgoing)) in signers {
        said.insert(party, outgoing);
        begun.push((party, ceremony));
    }
    let coordinator = Arc::new(Secret::<Ed25519>::new(&public, me(2), &scalar(2)).unwrap());
    let first = || Ok(sign::combine(me(2), &coordinator, &signing));
    let (mut combiner, _) = Ceremony::begin(terms, To::Coordinator, signing.signers.clone(), first).unwrap();
    for (party, ceremony) in begun {
        let heard = said.iter().filter(|(from, _)| **from != party).flat_map(|(_, said)| said.clone());
        let Step::Done(held, _) = ceremony.step(heard.collect()) else { panic!("{party} did not sign") };
        let last = Incoming { from: party, bytes: held.release().bytes.to_vec() };
        combiner = match combiner.step(vec![last]) {
            Step::Continue(combiner, _) => combiner,
            Step::Done(signature, _) => return assert_eq!(signature, bytes(SIGNATURE)),
            other => panic!("{other:?}"),
        };
    }
    panic!("no signature");
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(byte).collect()
}
