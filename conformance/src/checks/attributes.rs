//! Chapters 4.7 to 4.10: what a key's attributes promise, and that no path leads back from a promise.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::marks::Severity;
use crate::session::{Session, aes, private};
use crate::template::{Mechanism, Template, UNAVAILABLE};

table! {
    all key_separation;
    "attributes.sensitive-hidden" User sensitive_hidden, "4.10 CKA_SENSITIVE", "a sensitive secret key does not show its value" => critical;
    "attributes.unextractable-hidden" User unextractable_hidden, "4.10 CKA_EXTRACTABLE", "a key that is not sensitive but not extractable does not show its value" => critical;
    "attributes.plain-shown" User plain_shown, "4.10 Secret key objects", "a key that is extractable and not sensitive shows the value that it was given";
    "attributes.private-ec-hidden" User private_ec_hidden, "4.9 CKA_SENSITIVE", "a sensitive EC private key does not show its value" => critical;
    "attributes.private-rsa-hidden" User private_rsa_hidden, "4.9 CKA_SENSITIVE", "a sensitive RSA private key shows neither exponent nor factors" => critical;
    "attributes.sensitive-in-mixed" User sensitive_in_mixed, "5.7.5 C_GetAttributeValue", "beside a sensitive attribute the others are answered" => critical;
    "attributes.sensitive-for-ever" User sensitive_for_ever, "4.10 CKA_SENSITIVE", "CKA_SENSITIVE does not go back to false" => critical;
    "attributes.sensitive-later" User sensitive_later, "4.10 CKA_SENSITIVE", "CKA_SENSITIVE goes to true, and was not always so" => high;
    "attributes.unextractable-for-ever" User unextractable_for_ever, "4.10 CKA_EXTRACTABLE", "CKA_EXTRACTABLE does not go back to true" => critical;
    "attributes.unextractable-later" User unextractable_later, "4.10 CKA_EXTRACTABLE", "CKA_EXTRACTABLE goes to false, and was once true" => high;
    "attributes.copy-sensitive" User copy_sensitive, "4.1.3 Copying objects", "a copy of a sensitive key is sensitive" => critical;
    "attributes.copy-unextractable" User copy_unextractable, "4.1.3 Copying objects", "a copy of an unextractable key is unextractable" => critical;
    "attributes.copy-hidden" User copy_hidden, "4.1.3 Copying objects", "a copy of a sensitive key does not show its value" => critical;
    "attributes.copy-made-sensitive" User copy_made_sensitive, "4.1.3 Copying objects", "a copy made sensitive was not always so" => high;
    "attributes.generated" User generated, "4.7 Key objects", "a generated key is local, and says how it was made and what it always was";
    "attributes.generated-open" User generated_open, "4.10 Secret key objects", "a key generated open was never sensitive" => high;
    "attributes.imported" User imported, "4.7 Key objects", "an imported key is not local, nor always sensitive, nor never extractable" => high;
    "attributes.import-forged" User import_forged, "4.7 Key objects", "an imported key cannot claim to be local or always sensitive" => high;
    "attributes.generate-forged" User generate_forged, "4.7 Key objects", "a generated key cannot be told what it always was" => high;
    "attributes.set-forged" User set_forged, "4.1.2 Modifying objects", "the history of a key is read-only" => high;
    "attributes.trusted" User trusted, "4.8 CKA_TRUSTED", "the user makes no key trusted" => high;
    "attributes.wrap-with-trusted" User wrap_with_trusted, "4.10 CKA_WRAP_WITH_TRUSTED", "CKA_WRAP_WITH_TRUSTED does not go back to false" => high;
    "attributes.set-value" User set_value, "4.1.2 Modifying objects", "the value of a key is read-only" => high;
    "attributes.set-key-type" User set_key_type, "4.1.2 Modifying objects", "the type of a key is read-only";
    "attributes.set-private" User set_private, "4.1.2 Modifying objects", "CKA_PRIVATE is read-only" => high;
    "attributes.set-ec-point" User set_ec_point, "4.1.2 Modifying objects", "the point of a public key is read-only" => high;
    "attributes.set-modulus" User set_modulus, "4.1.2 Modifying objects", "the modulus of a key is read-only" => high;
    "attributes.private-default" User private_default, "4.9 Private key objects", "a private key is private unless told otherwise (the default is the token's choice)" => informational;
    "attributes.usage-switch" User usage_switch, "4.10 Secret key objects", "a use that was taken away is refused" => high;
}

/// How an imported key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Neither sensitive nor unextractable.
    Open,
    /// Sensitive, and extractable in wrapped form.
    Sensitive,
    /// Unextractable, and not sensitive.
    Unextractable,
    /// Sensitive and unextractable.
    Closed,
}

fn imported_key(session: &Session<'_>, kept: Kept) -> Result<CK_OBJECT_HANDLE, Stop> {
    session.create(
        &Template::secret(CKK_GENERIC_SECRET, &[0x5a; 32])
            .bool(CKA_SENSITIVE, matches!(kept, Kept::Sensitive | Kept::Closed))
            .bool(CKA_EXTRACTABLE, matches!(kept, Kept::Sensitive | Kept::Open))
            .usages(&[CKA_SIGN]),
    )
}

/// A value that must not be shown, asked with room for all of it and then for its length.
fn hidden(session: &Session<'_>, key: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Verdict {
    let mut asked = Template::new().room(kind, 1024);
    let rv = session.query(key, &mut asked);
    if !asked.is_untouched(0) {
        let seen = format!("{rv}, and {} bytes of it", asked.value(0).len());
        return Err(Stop::graded(Severity::Critical, "CKR_ATTRIBUTE_SENSITIVE and nothing written", seen));
    }
    rv.is(CKR_ATTRIBUTE_SENSITIVE)?;
    ensure(asked.length(0) == UNAVAILABLE, "length -1", asked.length(0).to_string())?;
    session.query(key, &mut Template::new().ask(kind)).is(CKR_ATTRIBUTE_SENSITIVE)
}

fn sensitive_hidden(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    hidden(&session, imported_key(&session, Kept::Sensitive)?, CKA_VALUE)
}

fn unextractable_hidden(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    hidden(&session, imported_key(&session, Kept::Unextractable)?, CKA_VALUE)
}

fn plain_shown(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let seen = session.attribute(imported_key(&session, Kept::Open)?, CKA_VALUE)?;
    ensure(seen == [0x5a; 32], "the value", format!("{} other bytes", seen.len()))
}

fn private_ec_hidden(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    hidden(&session, session.p256()?.private, CKA_VALUE)
}

fn private_rsa_hidden(bench: &Bench) -> Verdict {
    let key = bench.rsa()?.private;
    let session = bench.session()?;
    let parts =
        [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT];
    for part in parts {
        let mut asked = Template::new().room(part, 1024);
        session.query(key, &mut asked).one_of(&[CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID])?;
        ensure(asked.is_untouched(0), "nothing written", format!("{part:#x} was written"))?;
    }
    hidden(&session, key, CKA_PRIVATE_EXPONENT)
}

fn sensitive_in_mixed(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Closed)?;
    let mut asked = Template::new().room(CKA_SENSITIVE, 1).room(CKA_VALUE, 64).room(CKA_EXTRACTABLE, 1);
    session.query(key, &mut asked).is(CKR_ATTRIBUTE_SENSITIVE)?;
    let good = asked.value(0) == [1] && asked.value(2) == [0] && asked.length(1) == UNAVAILABLE;
    let seen = format!("{:?}, length {}, {:?}", asked.value(0), asked.length(1), asked.value(2));
    ensure(good && asked.is_untouched(1), "[1], length -1, [0]", seen)
}

fn flag(session: &Session<'_>, key: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE, expected: bool) -> Verdict {
    let seen = session.attribute(key, kind)?;
    ensure(seen == [u8::from(expected)], format!("{kind:#x}: {expected}"), format!("{kind:#x}: {seen:?}"))
}

fn set_flag(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    kind: CK_ATTRIBUTE_TYPE,
    value: bool,
) -> crate::rv::Rv {
    session.set(key, &Template::new().bool(kind, value))
}

fn sensitive_for_ever(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Sensitive)?;
    set_flag(&session, key, CKA_SENSITIVE, false).is(CKR_ATTRIBUTE_READ_ONLY)?;
    hidden(&session, key, CKA_VALUE)
}

fn sensitive_later(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Open)?;
    set_flag(&session, key, CKA_SENSITIVE, true).ok()?;
    flag(&session, key, CKA_ALWAYS_SENSITIVE, false)?;
    hidden(&session, key, CKA_VALUE)
}

fn unextractable_for_ever(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Unextractable)?;
    set_flag(&session, key, CKA_EXTRACTABLE, true).is(CKR_ATTRIBUTE_READ_ONLY)?;
    hidden(&session, key, CKA_VALUE)
}

fn unextractable_later(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Open)?;
    set_flag(&session, key, CKA_EXTRACTABLE, false).ok()?;
    flag(&session, key, CKA_NEVER_EXTRACTABLE, false)?;
    hidden(&session, key, CKA_VALUE)
}

/// What a template that weakens a copy is answered with.
const WEAKER: &[CK_RV] = &[CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_READ_ONLY];

fn copy_sensitive(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Sensitive)?;
    session.copy(key, &Template::new().bool(CKA_SENSITIVE, false)).0.one_of(WEAKER)
}

fn copy_unextractable(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Closed)?;
    session.copy(key, &Template::new().bool(CKA_EXTRACTABLE, true)).0.one_of(WEAKER)
}

fn copy_hidden(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (rv, copy) = session
        .copy(imported_key(&session, Kept::Closed)?, &Template::new().bytes(CKA_LABEL, crate::bench::LABEL));
    rv.ok()?;
    hidden(&session, copy, CKA_VALUE)
}

fn copy_made_sensitive(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (rv, copy) = session.copy(
        imported_key(&session, Kept::Open)?,
        &Template::new().bool(CKA_SENSITIVE, true).bool(CKA_EXTRACTABLE, false),
    );
    rv.ok()?;
    flag(&session, copy, CKA_ALWAYS_SENSITIVE, false)?;
    flag(&session, copy, CKA_NEVER_EXTRACTABLE, false)?;
    hidden(&session, copy, CKA_VALUE)
}

fn generate(session: &Session<'_>, template: &Template) -> Result<CK_OBJECT_HANDLE, Stop> {
    session.bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let (rv, key) = session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), template);
    rv.ok().map(|()| key)
}

fn generated(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = generate(&session, &aes(32).bool(CKA_SENSITIVE, true).bool(CKA_EXTRACTABLE, false))?;
    for kind in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
        flag(&session, key, kind, true)?;
    }
    let made = session.attribute(key, CKA_KEY_GEN_MECHANISM)?;
    ensure(made == CKM_AES_KEY_GEN.to_ne_bytes(), "CKM_AES_KEY_GEN", format!("{made:?}"))
}

fn generated_open(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = generate(&session, &aes(32).bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true))?;
    flag(&session, key, CKA_LOCAL, true)?;
    flag(&session, key, CKA_ALWAYS_SENSITIVE, false)?;
    flag(&session, key, CKA_NEVER_EXTRACTABLE, false)
}

fn imported(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Closed)?;
    for kind in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
        flag(&session, key, kind, false)?;
    }
    let made = session.attribute(key, CKA_KEY_GEN_MECHANISM)?;
    ensure(made == UNAVAILABLE.to_ne_bytes(), "CK_UNAVAILABLE_INFORMATION", format!("{made:?}"))
}

/// What a template that tells a key its history is answered with.
const FORGED: &[CK_RV] = &[CKR_ATTRIBUTE_READ_ONLY, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_TYPE_INVALID];

fn history() -> [Template; 4] {
    [
        Template::new().bool(CKA_ALWAYS_SENSITIVE, true),
        Template::new().bool(CKA_NEVER_EXTRACTABLE, true),
        Template::new().bool(CKA_LOCAL, true),
        Template::new().ulong(CKA_KEY_GEN_MECHANISM, CKM_AES_KEY_GEN),
    ]
}

fn import_forged(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = || Template::secret(CKK_AES, &[1; 32]).bool(CKA_SENSITIVE, true).bool(CKA_EXTRACTABLE, false);
    let forged = [
        key().bool(CKA_ALWAYS_SENSITIVE, true),
        key().bool(CKA_NEVER_EXTRACTABLE, true),
        key().bool(CKA_LOCAL, true),
        key().ulong(CKA_KEY_GEN_MECHANISM, CKM_AES_KEY_GEN),
    ];
    forged.iter().try_for_each(|template| session.try_create(template).0.one_of(FORGED))
}

fn generate_forged(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let session = bench.session()?;
    let mechanism = Mechanism::plain(CKM_AES_KEY_GEN);
    let forged = [
        aes(32).bool(CKA_SENSITIVE, false).bool(CKA_ALWAYS_SENSITIVE, true),
        aes(32).bool(CKA_EXTRACTABLE, true).bool(CKA_NEVER_EXTRACTABLE, true),
        aes(32).bool(CKA_LOCAL, false),
        aes(32).ulong(CKA_KEY_GEN_MECHANISM, CKM_SHA256),
    ];
    forged.iter().try_for_each(|template| session.try_generate(&mechanism, template).0.one_of(FORGED))
}

fn set_forged(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Closed)?;
    history().iter().try_for_each(|template| session.set(key, template).is(CKR_ATTRIBUTE_READ_ONLY))
}

fn trusted(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let refusals = [
        CKR_ATTRIBUTE_READ_ONLY,
        CKR_USER_NOT_LOGGED_IN,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_ATTRIBUTE_TYPE_INVALID,
    ];
    let template = Template::secret(CKK_AES, &[1; 32]).bool(CKA_TRUSTED, true);
    session.try_create(&template).0.one_of(&refusals)?;
    let key = imported_key(&session, Kept::Sensitive)?;
    set_flag(&session, key, CKA_TRUSTED, true).one_of(&refusals)
}

fn wrap_with_trusted(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.create(&Template::secret(CKK_AES, &[1; 32]))?;
    let template = Template::secret(CKK_AES, &[1; 32]).bool(CKA_WRAP_WITH_TRUSTED, true);
    let (rv, key) = session.try_create(&template);
    if rv.was(CKR_ATTRIBUTE_TYPE_INVALID) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    set_flag(&session, key, CKA_WRAP_WITH_TRUSTED, false).is(CKR_ATTRIBUTE_READ_ONLY)
}

fn read_only(session: &Session<'_>, object: CK_OBJECT_HANDLE, template: &Template) -> Verdict {
    session.set(object, template).is(CKR_ATTRIBUTE_READ_ONLY)
}

fn set_value(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Open)?;
    read_only(&session, key, &Template::new().bytes(CKA_VALUE, &[1; 32]))
}

fn set_key_type(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = imported_key(&session, Kept::Open)?;
    read_only(&session, key, &Template::new().ulong(CKA_KEY_TYPE, CKK_AES))
}

fn set_private(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    read_only(&session, key, &Template::new().bool(CKA_PRIVATE, false))
}

fn set_ec_point(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pair = session.p256()?;
    let other = session.attribute(session.p256()?.public, CKA_EC_POINT)?;
    read_only(&session, pair.public, &Template::new().bytes(CKA_EC_POINT, &other))
}

fn set_modulus(bench: &Bench) -> Verdict {
    let pair = bench.rsa()?;
    let session = bench.session()?;
    for key in [pair.public, pair.private] {
        read_only(&session, key, &Template::new().bytes(CKA_MODULUS, &[0xff; 256]))?;
    }
    Ok(())
}

fn private_default(bench: &Bench) -> Verdict {
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    let pair = session.generate_pair(
        &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
        &crate::session::ec_public(crate::session::P256),
        &private().without(CKA_PRIVATE).without(CKA_SENSITIVE).without(CKA_EXTRACTABLE),
    )?;
    flag(&session, pair.private, CKA_PRIVATE, true)
}

fn usage_switch(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    set_flag(&session, key, CKA_SIGN, false).ok()?;
    let mechanism = Mechanism::plain(CKM_SHA256_HMAC);
    session.init(crate::raw::Function::C_SignInit, &mechanism, Some(key)).is(CKR_KEY_FUNCTION_NOT_PERMITTED)
}
