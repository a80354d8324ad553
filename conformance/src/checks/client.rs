//! An ordinary application, written with the `cryptoki` crate as any Rust program would be.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::slot::Slot;
use cryptoki::types::Ulong;

use crate::bench::{Bench, LABEL};
use crate::check::{Stop, Verdict, ensure, table};
use crate::client::{Client, ClientSession};
use crate::raw::Function as F;
use crate::report::counted;

table! {
    "client.info" Loaded info, "5.4.3, 5.5.2, 5.5.3", "library, slot and token describe themselves";
    "client.ecdsa" Loaded ecdsa, "5.13, 5.15, 6.3", "a P-256 key is made, signs and verifies" => session_objects;
    "client.rsa" Loaded rsa, "5.13, 5.15, 6.1", "an RSA key is made, signs and verifies" => session_objects;
    "client.aes" Loaded aes, "5.8, 5.10, 6", "an AES key is made, encrypts and decrypts" => session_objects;
    "client.find" Loaded find, "5.7", "a data object is made, found, read, changed and destroyed" => session_objects;
    "client.digest" Loaded digest, "5.12", "a digest in parts is the digest of the whole";
    "client.random" Loaded random, "5.19", "random bytes come";
    "client.token-key" Loaded token_key, "5.7, 5.13", "a token key is found by the next session and signs" => token_objects;
}

/// Starts the module as an application would, does something in a logged-in session, and stops it.
fn application(
    bench: &Bench,
    needs: &[MechanismType],
    act: impl FnOnce(&ClientSession<'_>) -> Verdict,
) -> Verdict {
    starts_plainly(bench)?;
    let pin = bench.pin()?;
    let client = Client::start(bench)?;
    let label = bench.target.token_label.as_deref();
    let wanted = |slot: &Slot| {
        let info = client.ask(F::C_GetTokenInfo, Some(*slot), |context| context.get_token_info(*slot));
        info.is_ok_and(|info| label.is_none_or(|label| info.label() == label))
    };
    let slot = client.slots()?.into_iter().find(wanted).ok_or_else(|| Stop::fail("a token", "none"))?;
    let offered = client.mechanisms(slot)?;
    if needs.iter().any(|mechanism| !offered.contains(mechanism)) {
        return Err(Stop::NotOffered);
    }
    let session = client.log_in(slot, &pin)?;
    act(&session)?;
    session.close()?;
    client.stop()
}

/// An ordinary client gives `C_Initialize` no string.
fn starts_plainly(bench: &Bench) -> Verdict {
    match bench.target.init_string {
        Some(_) => Err(Stop::Skipped("an ordinary client has no --init-string".to_owned())),
        None => Ok(()),
    }
}

fn label() -> Attribute {
    Attribute::Label(LABEL.to_vec())
}

fn info(bench: &Bench) -> Verdict {
    starts_plainly(bench)?;
    let client = Client::start(bench)?;
    let library = client.ask(F::C_GetInfo, None, Pkcs11::get_library_info)?;
    ensure(!library.library_description().is_empty(), "a description", "none")?;
    for slot in client.slots()? {
        client.ask(F::C_GetSlotInfo, Some(slot), |context| context.get_slot_info(slot))?;
        client.ask(F::C_GetTokenInfo, Some(slot), |context| context.get_token_info(slot))?;
        for mechanism in client.mechanisms(slot)? {
            client.mechanism_info(slot, mechanism)?;
        }
    }
    client.stop()
}

fn ecdsa(bench: &Bench) -> Verdict {
    application(bench, &[MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA], |session| {
        let public = [
            label(),
            Attribute::Token(false),
            Attribute::Verify(true),
            Attribute::EcParams(crate::session::P256.to_vec()),
        ];
        let private = [label(), Attribute::Token(false), Attribute::Sign(true)];
        let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
        let signature = session.sign(&Mechanism::Ecdsa, private, &[7; 32])?;
        session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature)
    })
}

fn rsa(bench: &Bench) -> Verdict {
    let needs = [MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::SHA256_RSA_PKCS];
    application(bench, &needs, |session| {
        let public = [
            label(),
            Attribute::Token(false),
            Attribute::Verify(true),
            Attribute::ModulusBits(Ulong::from(2048)),
            Attribute::PublicExponent(vec![1, 0, 1]),
        ];
        let private = [label(), Attribute::Token(false), Attribute::Sign(true)];
        let (public, private) =
            session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)?;
        let signature = session.sign(&Mechanism::Sha256RsaPkcs, private, b"message")?;
        session.verify(&Mechanism::Sha256RsaPkcs, public, b"message", &signature)
    })
}

fn aes(bench: &Bench) -> Verdict {
    application(bench, &[MechanismType::AES_KEY_GEN, MechanismType::AES_CBC_PAD], |session| {
        let template = [
            label(),
            Attribute::Token(false),
            Attribute::ValueLen(Ulong::from(32)),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        let key = session.generate_key(&Mechanism::AesKeyGen, &template)?;
        let mechanism = Mechanism::AesCbcPad([7; 16]);
        let ciphertext = session.encrypt(&mechanism, key, b"message")?;
        let text = session.decrypt(&mechanism, key, &ciphertext)?;
        ensure(text == b"message", "the message", format!("{text:?}"))
    })
}

fn find(bench: &Bench) -> Verdict {
    application(bench, &[], |session| {
        let mark = Attribute::Application(b"client".to_vec());
        let object = session.create_object(&[
            label(),
            mark.clone(),
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(false),
            Attribute::Private(false),
            Attribute::Value(b"value".to_vec()),
        ])?;
        let found = session.find_objects(&[mark])?;
        ensure(found == [object], "the object", format!("{found:?}"))?;
        session.update_attributes(object, &[Attribute::Label(b"other".to_vec())])?;
        let seen = session.get_attributes(object, &[AttributeType::Label, AttributeType::Value])?;
        let expected = [Attribute::Label(b"other".to_vec()), Attribute::Value(b"value".to_vec())];
        ensure(seen == expected, "the new label and the old value", format!("{seen:?}"))?;
        session.destroy_object(object)
    })
}

fn digest(bench: &Bench) -> Verdict {
    application(bench, &[MechanismType::SHA256], |session| {
        let whole = session.digest(&Mechanism::Sha256, b"one and two")?;
        let parts = session.digest_parts(&Mechanism::Sha256, &[b"one", b" and two"])?;
        ensure(whole == parts, format!("{whole:02x?}"), format!("{parts:02x?}"))
    })
}

fn random(bench: &Bench) -> Verdict {
    application(bench, &[], |session| {
        let (one, other) = (session.random(32)?, session.random(32)?);
        ensure(one != other && one.len() == 32, "32 bytes, others each time", format!("{one:02x?}"))
    })
}

fn token_key(bench: &Bench) -> Verdict {
    let needs = [MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA];
    let id = || Attribute::Id(b"client token key".to_vec());
    application(bench, &needs, |session| {
        let curve = Attribute::EcParams(crate::session::P256.to_vec());
        let public = [label(), id(), Attribute::Token(true), Attribute::Verify(true), curve];
        let private = [label(), id(), Attribute::Token(true), Attribute::Sign(true)];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
        Ok(())
    })?;
    application(bench, &needs, |session| {
        let one = |class| {
            let found = session.find_objects(&[id(), Attribute::Class(class)])?;
            match found.as_slice() {
                [key] => Ok(*key),
                _ => Err(Stop::fail("one key", counted(found.len(), "key"))),
            }
        };
        let (public, private) = (one(ObjectClass::PUBLIC_KEY)?, one(ObjectClass::PRIVATE_KEY)?);
        let signature = session.sign(&Mechanism::Ecdsa, private, &[7; 32])?;
        session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature)?;
        session.destroy_object(public)?;
        session.destroy_object(private)
    })
}
