//! No nonce comes twice: not a signer's own, and not that of a whole signature.

use dkls23::protocols::{Parameters, signing::SignData};

use super::{ceremony::fenced, *};

/// How many nonces of one signer are looked at.
const MANY: usize = 100_000;

/// How many whole signatures of ECDSA are looked at, by curve; of one signer's own nonces there are [`MANY`]. With
/// optimisation a hundred thousand signatures take a quarter of an hour; without, hours:
/// `STRONGROOM_ECDSA_NONCES=100000 cargo test --release -p strongroom-server --lib nonces`.
fn ecdsa_signatures() -> usize {
    std::env::var("STRONGROOM_ECDSA_NONCES").map_or(200, |count| count.parse().unwrap())
}

/// The same message, key, signers and ceremony every time, which is the worst case.
fn signature(shares: &BTreeMap<Party, Share>) -> Vec<u8> {
    sign_over(shares, &[1, 2], DIGEST, honest).signature.unwrap().done()
}

#[test]
fn a_hundred_thousand_nonces_of_a_frost_signer_are_distinct() {
    for (scheme, point) in [(SchemeId::Ed25519, 32), (SchemeId::Bip340, 33)] {
        let shares = quick(scheme, 2, 2);
        let signing = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
        let mut seen = BTreeSet::new();
        // Each ceremony has two: the hiding one and the binding one.
        for _ in 0..MANY / 2 {
            let (_, said) = sign(&shares[&party(1)], &signing, &setup(1, 2, party(1))).unwrap();
            let body = Envelope::open(&said[0].bytes).unwrap().into_body();
            for commitment in body[body.len() - 2 * point..].chunks_exact(point) {
                assert!(seen.insert(commitment.to_vec()), "{scheme:?}: a nonce came twice");
            }
        }
        assert_eq!(seen.len(), MANY);
    }
}

/// What an ECDSA signer draws when it begins, behind the same guard as every ceremony. It draws before it looks who the
/// others are, and with each of those a multiplication begins, which takes a hundred times as long: here there are none.
fn nonces_of_an_ecdsa_signer<C: Curve>() {
    let parameters = Parameters::new(2, 2).unwrap();
    let session = tagged_hash(b"test", &[]);
    let (made, _) = re_key::<C>(&parameters, &session, &Weierstrass::<C>::random(), None, |_| String::new());
    let mut signer = made.into_iter().next().unwrap();
    signer.parameters.threshold = 1;
    let (sign_id, message_hash) = (vec![2; 32], *DIGEST);
    let data = SignData { sign_id, counterparties: Vec::new(), message_hash };
    let mut seen = BTreeSet::new();
    for _ in 0..MANY {
        let begun = fenced(|| signer.sign_phase1(&data).map_err(|_| Refusal::Internal));
        let (drawn, ..) = begun.unwrap();
        let nonce = Weierstrass::<C>::point_bytes(&drawn.instance_point);
        assert!(seen.insert(nonce), "{:?}: a nonce came twice", C::ID);
    }
    assert_eq!(seen.len(), MANY);
}

#[test]
fn a_hundred_thousand_nonces_of_an_ecdsa_signer_on_secp256k1_are_distinct() {
    nonces_of_an_ecdsa_signer::<Secp256k1>();
}

#[test]
fn a_hundred_thousand_nonces_of_an_ecdsa_signer_on_p256_are_distinct() {
    nonces_of_an_ecdsa_signer::<NistP256>();
}

#[test]
fn no_two_signatures_have_the_same_nonce() {
    for scheme in SchemeId::ALL {
        let count = match scheme {
            SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 => ecdsa_signatures(),
            SchemeId::Ed25519 | SchemeId::Bip340 => 1000,
        };
        let shares = quick(scheme, 2, 2);
        // r of ECDSA, R of the others.
        let nonces: BTreeSet<_> = (0..count).map(|_| signature(&shares)[..32].to_vec()).collect();
        assert_eq!(nonces.len(), count, "{scheme:?}");
    }
}
