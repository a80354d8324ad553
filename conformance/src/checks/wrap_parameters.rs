//! Chapter 6.13 of 3.2, keys that wrap keys by AES-GCM and AES-CCM: `CK_GCM_WRAP_PARAMS` and `CK_CCM_WRAP_PARAMS`, in
//! `C_WrapKey` and in `C_WrapKeyAuthenticated`.

use std::collections::BTreeSet;

use aws_lc_rs::aead;
use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

table! {
    all key_separation high;
    "wrapping.round-trip" User round_trip, "6.13 CK_GCM_WRAP_PARAMS, CK_CCM_WRAP_PARAMS (3.2)", "a key that was wrapped comes back, and by AES-GCM is what SP 800-38D says";
    "wrapping.forged" User forged, "5.18.4 C_UnwrapKey, 6.13 (3.2)", "a changed wrapped key, nonce or additional data is refused" => critical;
    "wrapping.nonces" User nonces, "6.13 CK_GCM_WRAP_PARAMS (SP 800-38D, 8.2)", "a nonce that the module makes is told, is used, and never comes twice" => randomness critical;
    "wrapping.parameters" User parameters, "6.13 CK_GCM_WRAP_PARAMS, CK_CCM_WRAP_PARAMS (3.2)", "no nonce, a tag of no or too many bits, and a null with a length are CKR_MECHANISM_PARAM_INVALID";
}

const WRAPPING: [u8; 32] = [0x5e; 32];
const WRAPPED: [u8; 32] = [0xc3; 32];
const NONCE: [u8; 12] = [7; 12];
const AAD: &[u8] = b"additional data";
const TAG: usize = 16;

/// The function that wraps, and so the place of the additional data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// `C_WrapKey`: in the parameter.
    Parameter,
    /// `C_WrapKeyAuthenticated`: beside it.
    Argument,
}

/// Each mechanism in each of the functions.
const WAYS: [(CK_MECHANISM_TYPE, By, &str); 4] = [
    (CKM_AES_GCM, By::Parameter, "C_WrapKey by AES-GCM"),
    (CKM_AES_CCM, By::Parameter, "C_WrapKey by AES-CCM"),
    (CKM_AES_GCM, By::Argument, "C_WrapKeyAuthenticated by AES-GCM"),
    (CKM_AES_CCM, By::Argument, "C_WrapKeyAuthenticated by AES-CCM"),
];

/// A parameter with the memory that it points to.
struct Parameter {
    number: CK_MECHANISM_TYPE,
    nonce: Vec<u8>,
    nonce_length: CK_ULONG,
    generator: CK_ULONG,
    aad: Vec<u8>,
    tag: CK_ULONG,
}

impl Parameter {
    fn new(number: CK_MECHANISM_TYPE, aad: &[u8]) -> Self {
        let (nonce, nonce_length, generator) = (NONCE.to_vec(), 12, CKG_NO_GENERATE);
        Self { number, nonce, nonce_length, generator, aad: aad.to_vec(), tag: TAG as CK_ULONG }
    }

    /// The structure of 3.2, for data of this many bytes. The module writes a nonce that it makes into ours.
    fn mechanism(&mut self, data: usize) -> Mechanism {
        let nonce = if self.nonce.is_empty() { 0 } else { self.nonce.as_mut_ptr().expose_provenance() };
        let aad = if self.aad.is_empty() { 0 } else { self.aad.as_ptr().expose_provenance() };
        let (nonce, aad) = (nonce as CK_ULONG, aad as CK_ULONG);
        let shared = [nonce, self.nonce_length, 0, self.generator, aad, self.aad.len() as CK_ULONG];
        match self.number {
            CKM_AES_CCM => {
                let [nonce, length, fixed, generator, aad, aad_length] = shared;
                let words = [data as CK_ULONG, nonce, length, fixed, generator, aad, aad_length, self.tag];
                Mechanism::words(self.number, &words)
            }
            _ => Mechanism::words(self.number, &[&shared[..], &[self.tag * 8]].concat()),
        }
    }
}

/// The keys of a check, and the way that it goes.
struct Subject<'b> {
    session: Session<'b>,
    wrapping: CK_OBJECT_HANDLE,
    target: CK_OBJECT_HANDLE,
    number: CK_MECHANISM_TYPE,
    by: By,
}

impl<'b> Subject<'b> {
    fn new(bench: &'b Bench, number: CK_MECHANISM_TYPE, by: By) -> Result<Self, Stop> {
        bench.offers(number, CKF_WRAP | CKF_UNWRAP)?;
        let session = bench.session()?;
        let key = |value: &[u8]| Template::secret(CKK_AES, value).bool(CKA_PRIVATE, true);
        let wrapping = session.create(&key(&WRAPPING).usages(&[CKA_SENSITIVE, CKA_WRAP, CKA_UNWRAP]))?;
        let target = session.create(&key(&WRAPPED).usages(&[CKA_EXTRACTABLE, CKA_ENCRYPT]))?;
        let subject = Self { session, wrapping, target, number, by };
        let (rv, _) = subject.wrap(&mut subject.parameter(), AAD);
        if rv.was(CKR_FUNCTION_NOT_SUPPORTED) { Err(Stop::NotOffered) } else { Ok(subject) }
    }

    /// The parameter, with the additional data if that is its place.
    fn parameter(&self) -> Parameter {
        Parameter::new(self.number, if self.by == By::Parameter { AAD } else { &[] })
    }

    fn wrap(&self, parameter: &mut Parameter, aad: &[u8]) -> (Rv, Vec<u8>) {
        let mechanism = parameter.mechanism(WRAPPED.len());
        let keys = [Arg::number(self.wrapping), Arg::number(self.target)];
        let mut out = Out::room(256);
        let rv = {
            let [buffer, room] = out.args();
            let (data, length) = (Arg::slice(aad), Arg::number(aad.len() as CK_ULONG));
            match self.by {
                By::Parameter => {
                    self.session.call(F::C_WrapKey, &[mechanism.arg(), keys[0], keys[1], buffer, room])
                }
                By::Argument => {
                    let arguments = [mechanism.arg(), keys[0], keys[1], data, length, buffer, room];
                    self.session.call(F::C_WrapKeyAuthenticated, &arguments)
                }
            }
        };
        (rv, if rv.was(CKR_OK) { out.bytes().to_vec() } else { Vec::new() })
    }

    fn unwrap(&self, parameter: &mut Parameter, aad: &[u8], blob: &[u8]) -> (Rv, CK_OBJECT_HANDLE) {
        let mechanism = parameter.mechanism(WRAPPED.len());
        let template = Template::of_class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_AES)
            .bool(CKA_TOKEN, false)
            .bool(CKA_SENSITIVE, false)
            .bool(CKA_EXTRACTABLE, true);
        let [attributes, count] = template.args();
        let mut key: CK_OBJECT_HANDLE = 0;
        let (wrapped, length) = (Arg::slice(blob), Arg::number(blob.len() as CK_ULONG));
        let head = [mechanism.arg(), Arg::number(self.wrapping), wrapped, length, attributes, count];
        let (data, data_length) = (Arg::slice(aad), Arg::number(aad.len() as CK_ULONG));
        let rv = match self.by {
            By::Parameter => {
                self.session.call(F::C_UnwrapKey, &[&head[..], &[Arg::of_mut(&mut key)]].concat())
            }
            By::Argument => {
                let tail = [data, data_length, Arg::of_mut(&mut key)];
                self.session.call(F::C_UnwrapKeyAuthenticated, &[&head[..], &tail].concat())
            }
        };
        (rv, key)
    }

    /// The wrapped key by another implementation, if that has the mechanism.
    fn expected(&self, nonce: &[u8; 12]) -> Option<Vec<u8>> {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &WRAPPING).ok()?;
        let key = Some(aead::LessSafeKey::new(key)).filter(|_| self.number == CKM_AES_GCM)?;
        let mut blob = WRAPPED.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(AAD), &mut blob).ok()?;
        Some(blob)
    }
}

/// Makes a check by each mechanism, in each function, that the token has for it.
fn each_way(bench: &Bench, run: impl Fn(&Subject<'_>) -> Verdict) -> Verdict {
    each(WAYS, |(.., name)| (*name).to_owned(), |(number, by, _)| run(&Subject::new(bench, *number, *by)?))
}

fn round_trip(bench: &Bench) -> Verdict {
    each_way(bench, |subject| {
        let (rv, blob) = subject.wrap(&mut subject.parameter(), AAD);
        rv.ok()?;
        if let Some(expected) = subject.expected(&NONCE) {
            ensure(
                blob == expected,
                "the key by AES-256-GCM, and its tag",
                format!("{} other bytes", blob.len()),
            )?;
        }
        let (rv, key) = subject.unwrap(&mut subject.parameter(), AAD, &blob);
        rv.ok()?;
        ensure(subject.session.attribute(key, CKA_VALUE)? == WRAPPED, "the key that was wrapped", "another")
    })
}

fn forged(bench: &Bench) -> Verdict {
    each_way(bench, |subject| {
        let (rv, blob) = subject.wrap(&mut subject.parameter(), AAD);
        rv.ok()?;
        let flipped = |place: usize| {
            let mut changed = blob.clone();
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= 1;
            }
            changed
        };
        let (mut other_nonce, mut other_data) = (subject.parameter(), subject.parameter());
        other_nonce.nonce = vec![8; 12];
        if subject.by == By::Parameter {
            other_data.aad = b"other data here".to_vec();
        }
        let forgeries = [
            ("a changed first byte", subject.parameter(), AAD, flipped(0)),
            ("a changed tag", subject.parameter(), AAD, flipped(blob.len() - 1)),
            ("another nonce", other_nonce, AAD, blob.clone()),
            ("other additional data", other_data, &b"other data here"[..], blob.clone()),
            ("a missing tag", subject.parameter(), AAD, blob.iter().copied().take(32).collect()),
        ];
        for (what, mut parameter, aad, blob) in forgeries {
            match subject.unwrap(&mut parameter, aad, &blob).0 {
                rv if rv.was(CKR_OK) => return Err(Stop::fail("a refusal", format!("{what}: {rv}"))),
                rv => rv.refused()?,
            }
        }
        Ok(())
    })
}

fn nonces(bench: &Bench) -> Verdict {
    each_way(bench, |subject| {
        let mut seen = BTreeSet::new();
        for _ in 0..64 {
            let mut parameter = Parameter { generator: CKG_GENERATE, ..subject.parameter() };
            let (rv, blob) = subject.wrap(&mut parameter, AAD);
            if rv.was(CKR_MECHANISM_PARAM_INVALID) && seen.is_empty() {
                return Err(Stop::NotOffered);
            }
            rv.ok()?;
            let nonce: [u8; 12] = parameter.nonce.as_slice().try_into().unwrap_or_default();
            if let Some(expected) = subject.expected(&nonce) {
                ensure(blob == expected, "the key by AES-256-GCM with the nonce that was told", "another")?;
            }
            ensure(seen.insert(nonce), "another nonce each time", "one twice")?;
        }
        Ok(())
    })
}

fn parameters(bench: &Bench) -> Verdict {
    each_way(bench, |subject| {
        subject.wrap(&mut subject.parameter(), AAD).0.ok()?;
        let good = || subject.parameter();
        let bad = [
            ("no nonce", Parameter { nonce: Vec::new(), nonce_length: 0, ..good() }),
            ("a null nonce with a length", Parameter { nonce: Vec::new(), ..good() }),
            ("no tag", Parameter { tag: 0, ..good() }),
            ("a tag of 17 bytes", Parameter { tag: 17, ..good() }),
            ("a generator that does not exist", Parameter { generator: 0x7777, ..good() }),
        ];
        for (what, mut parameter) in bad {
            match subject.wrap(&mut parameter, AAD).0 {
                rv if rv.was(CKR_OK) => {
                    return Err(Stop::fail("CKR_MECHANISM_PARAM_INVALID", format!("{what}: {rv}")));
                }
                rv => rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD])?,
            }
        }
        Ok(())
    })
}
