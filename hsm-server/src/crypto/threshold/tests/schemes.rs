//! Every scheme makes a key that every sufficient set of its parties signs with.

use super::*;

#[test]
fn every_two_of_three_sign_with_a_key_that_nobody_made_alone() {
    for scheme in SchemeId::ALL {
        let shares = generate(scheme, 2, 3);
        for signers in subsets(2, 3) {
            check_signature(&shares, &signers, DIGEST);
        }
    }
}

#[test]
fn every_three_of_five_sign() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 3, 5);
        for signers in subsets(3, 5) {
            check_signature(&shares, &signers, DIGEST);
        }
    }
}

#[test]
fn a_digest_counts_by_its_leftmost_32_bytes_and_a_shorter_one_is_a_smaller_number() {
    for scheme in [SchemeId::EcdsaSecp256k1, SchemeId::EcdsaP256] {
        let shares = quick(scheme, 2, 2);
        let public = shares[&party(1)].public();
        let mut long = DIGEST.to_vec();
        long.extend_from_slice(&[0xee; 32]);
        let signature = sign_over(&shares, &[1, 2], &long, honest).signature.unwrap().done();
        assert!(verifies(public, DIGEST, &signature));
        let signature = sign_over(&shares, &[1, 2], &DIGEST[..20], honest).signature.unwrap().done();
        let mut padded = vec![0; 12];
        padded.extend_from_slice(&DIGEST[..20]);
        assert!(verifies(public, &padded, &signature));
    }
}

#[test]
fn a_schnorr_message_has_any_length() {
    for scheme in [SchemeId::Ed25519, SchemeId::Bip340] {
        let shares = quick(scheme, 2, 2);
        for length in [0, 1, 31, 64, 10_000] {
            let message = vec![length as u8; length];
            let signature = sign_over(&shares, &[1, 2], &message, honest).signature.unwrap().done();
            assert!(verifies(shares[&party(1)].public(), &message, &signature));
        }
    }
}

#[test]
fn public_keys_have_the_form_of_pkcs11() {
    for (scheme, length) in SchemeId::ALL.into_iter().zip([65, 65, 32, 32]) {
        let key = quick(scheme, 2, 2)[&party(1)].public().public_key().unwrap();
        assert_eq!(key.len(), length);
        assert!(length == 32 || key[0] == 4);
    }
}

#[test]
fn a_share_survives_its_bytes_and_is_shown_to_nobody() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 2, 3);
        let again = shares
            .iter()
            .map(|(party, share)| {
                let bytes = share.to_secret_bytes().unwrap();
                (*party, Share::from_bytes(&bytes).unwrap())
            })
            .collect();
        check_signature(&again, &[2, 3], DIGEST);
        let public = shares[&party(1)].public();
        assert_eq!(PublicShares::from_bytes(&public.to_bytes()).unwrap(), *public);
        let scalar = shares[&party(1)].secret.scalar_bytes();
        let shown = format!("{:?} {:?}", shares[&party(1)], shares[&party(1)].secret);
        let hexadecimal: String = scalar.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hexadecimal) && !shown.contains(&format!("{:?}", &scalar[..4])));
    }
}

#[test]
fn a_party_that_hears_two_rounds_at_once_still_says_its_part_of_both() {
    let shares = quick(SchemeId::EcdsaSecp256k1, 2, 2);
    let signing = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
    let begin = |number| sign(&shares[&party(number)], &signing, &setup(1, 2, party(number))).unwrap();
    let incoming = |number: u8, outgoing: &[Outgoing]| {
        let letter = |sent: &Outgoing| Incoming { from: party(number), bytes: sent.bytes.to_vec() };
        outgoing.iter().map(letter).collect::<Vec<_>>()
    };
    let ((slow, first), (fast, quick_first)) = (begin(1), begin(2));
    let Step::Continue(fast, quick_second) = fast.step(incoming(1, &first)) else { panic!() };
    let both = [incoming(2, &quick_first), incoming(2, &quick_second)].concat();
    let Step::Done(_, second) = slow.step(both) else { panic!("it waits") };
    assert!(matches!(fast.step(incoming(1, &second)), Step::Done(..)));
}
