//! Objects: who sees them, what they show, how they may change.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{CKM_STRONGROOM_BIP340, Params},
    message::*,
    object::{Template, Value},
};

use crate::world::*;

fn aes(token: bool) -> GenerateKey {
    let template = Template::new().with(CKA_VALUE_LEN, Value::Ulong(32)).with(CKA_TOKEN, Value::Bool(token));
    GenerateKey { mechanism: CKM_AES_KEY_GEN, params: Params::None, template }
}

#[test]
fn a_sensitive_value_is_never_shown_and_never_found() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let pair = world.ask(&vault, &client, &ec_pair("k")).unwrap();
    let read = ReadAttributes { object: pair.private.id, kinds: vec![CKA_VALUE, CKA_LABEL, CKA_MODULUS] };
    let answers = world.ask(&vault, &client, &read).unwrap().answers;
    assert_eq!(answers, [Answer::Sensitive, Answer::Value(Value::bytes(*b"k")), Answer::Absent]);
    for (kind, value) in [(CKA_SENSITIVE, false), (CKA_EXTRACTABLE, true)] {
        let template = Template::new().with(kind, Value::Bool(value));
        let write = WriteAttributes { object: pair.private.id, template };
        assert_eq!(code(world.ask(&vault, &client, &write)), FaultCode::AttributeReadOnly);
    }
}

#[test]
fn a_key_that_is_not_extractable_is_not_shown_though_it_is_not_sensitive() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let mut call = aes(false);
    call.template.set(CKA_SENSITIVE, Value::Bool(false));
    let key = world.ask(&vault, &client, &call).unwrap();
    let read = ReadAttributes { object: key.id, kinds: vec![CKA_VALUE] };
    assert_eq!(world.ask(&vault, &client, &read).unwrap().answers, [Answer::Sensitive]);
}

#[test]
fn session_objects_belong_to_their_application_and_private_ones_to_the_user() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let session_key = world.ask(&vault, &client, &aes(false)).unwrap().id;
    let token_key = world.ask(&vault, &client, &aes(true)).unwrap().id;
    let mut other = world.connect(&vault, &certificate, 2);
    let keys = Template::new().with(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY));
    let find = || FindObjects { template: keys.clone(), after: None };
    assert_eq!(world.ask(&vault, &other, &find()).unwrap().objects.len(), 0);
    world.login(&vault, &mut other, User::Normal, USER_PIN).unwrap();
    let found: Vec<_> =
        world.ask(&vault, &other, &find()).unwrap().objects.iter().map(|object| object.id).collect();
    assert_eq!(found, [token_key]);
    let describe = DescribeObject { object: session_key };
    assert_eq!(code(world.ask(&vault, &other, &describe)), FaultCode::ObjectHandleInvalid);
    assert_eq!(world.ask(&vault, &client, &find()).unwrap().objects.len(), 2);

    client.caller.session = 2;
    world.ask(&vault, &client, &CloseSession {}).unwrap();
    assert!(world.ask(&vault, &client, &describe).is_ok());
    client.caller.session = 1;
    world.ask(&vault, &client, &CloseSession {}).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &describe)), FaultCode::ObjectHandleInvalid);
}

#[test]
fn other_partitions_keys_do_not_exist() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let pair = world.ask(&vault, &client, &ec_pair("k")).unwrap();
    let stranger = world.partition(&vault, "other", "stranger");
    let mut stranger = world.connect(&vault, &stranger, 1);
    stranger.caller.ticket.clone_from(&client.caller.ticket);
    assert_eq!(code(world.ask(&vault, &stranger, &sign(pair.private.id))), FaultCode::TicketExpired);
    stranger.caller.ticket = None;
    assert_eq!(code(world.ask(&vault, &stranger, &sign(pair.private.id))), FaultCode::KeyHandleInvalid);
}

#[test]
fn templates_are_held_against_the_standard() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let with = |kind, value: Value| {
        let mut call = aes(false);
        call.template.0.push(strongroom_shared::object::Attribute { kind, value });
        call
    };
    for (kind, value, expected) in [
        (CKA_VALUE_LEN, Value::Ulong(32), FaultCode::TemplateInconsistent),
        (CKA_VALUE, Value::bytes([1; 32]), FaultCode::TemplateInconsistent),
        (CKA_MODULUS, Value::bytes([1; 32]), FaultCode::TemplateInconsistent),
        (CKA_CLASS, Value::Ulong(CKO_PRIVATE_KEY), FaultCode::TemplateInconsistent),
        (CKA_LOCAL, Value::Bool(true), FaultCode::AttributeReadOnly),
        (CKA_ALWAYS_SENSITIVE, Value::Bool(true), FaultCode::AttributeReadOnly),
        (CKA_TRUSTED, Value::Bool(true), FaultCode::AttributeReadOnly),
        (CKA_LABEL, Value::Ulong(1), FaultCode::AttributeValueInvalid),
        (CKA_START_DATE, Value::bytes(*b"2026"), FaultCode::AttributeValueInvalid),
        (0x8000_1234, Value::bytes([]), FaultCode::AttributeTypeInvalid),
    ] {
        assert_eq!(code(world.ask(&vault, &client, &with(kind, value))), expected, "{kind:#x}");
    }
    let mut incomplete = aes(false);
    incomplete.template = Template::new();
    assert_eq!(code(world.ask(&vault, &client, &incomplete)), FaultCode::TemplateIncomplete);
    let mut public = client;
    public.caller.ticket = None;
    assert_eq!(code(world.ask(&vault, &public, &aes(false))), FaultCode::NotLoggedIn);
    public.caller.read_write = false;
    let mut token = aes(true);
    token.template.set(CKA_PRIVATE, Value::Bool(false));
    assert_eq!(code(world.ask(&vault, &public, &token)), FaultCode::SessionReadOnly);
}

#[test]
fn a_copy_gains_nothing() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &aes(true)).unwrap().id;
    let copy = |template| CopyObject { object: key, template };
    for (kind, value) in [(CKA_SENSITIVE, false), (CKA_EXTRACTABLE, true), (CKA_PRIVATE, false)] {
        let template = Template::new().with(kind, Value::Bool(value));
        assert_eq!(code(world.ask(&vault, &client, &copy(template))), FaultCode::AttributeReadOnly);
    }
    let fixed =
        Template::new().with(CKA_COPYABLE, Value::Bool(false)).with(CKA_DESTROYABLE, Value::Bool(false));
    let fixed = world.ask(&vault, &client, &copy(fixed)).unwrap().id;
    let again = CopyObject { object: fixed, template: Template::new() };
    assert_eq!(code(world.ask(&vault, &client, &again)), FaultCode::ActionProhibited);
    assert_eq!(
        code(world.ask(&vault, &client, &DestroyObject { object: fixed })),
        FaultCode::ActionProhibited
    );
}

#[test]
fn keys_do_only_what_their_attributes_permit() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let mut call = ec_pair("k");
    call.private.set(CKA_SIGN, Value::Bool(false));
    let pair = world.ask(&vault, &client, &call).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &sign(pair.private.id))), FaultCode::KeyFunctionNotPermitted);
    assert_eq!(code(world.ask(&vault, &client, &sign(pair.public.id))), FaultCode::KeyTypeInconsistent);
    let mut call = ec_pair("k");
    call.private.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_ECDSA]));
    let pair = world.ask(&vault, &client, &call).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &sign(pair.private.id))), FaultCode::MechanismInvalid);
    let others = pair.private.kept_from.unwrap();
    assert!(others.contains(&CKM_ECDSA_SHA256) && !others.contains(&CKM_ECDSA), "{others:x?}");
    // Unless it is told otherwise, a key is for every mechanism of its type but the one that has keys of its own.
    assert_eq!(pair.public.kept_from, Some(vec![CKM_STRONGROOM_BIP340]));
}

#[test]
fn the_profiles_are_there_for_everybody_and_for_ever() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let nobody = world.connect(&vault, &certificate, 2);
    let class = Template::new().with(CKA_CLASS, Value::Ulong(CKO_PROFILE));
    let find = |template: Template| FindObjects { template, after: None };
    let all = world.ask(&vault, &nobody, &find(Template::new())).unwrap().objects;
    let found = world.ask(&vault, &nobody, &find(class)).unwrap().objects;
    assert_eq!(found, all, "they are found as any object is");
    let baseline = Template::new().with(CKA_PROFILE_ID, Value::Ulong(CKP_BASELINE_PROVIDER));
    let baseline = world.ask(&vault, &nobody, &find(baseline)).unwrap().objects;
    let [object] = baseline.as_slice() else { panic!("{baseline:?}") };
    assert!(object.token && !object.private);
    let object = object.id;
    let read = ReadAttributes { object, kinds: vec![CKA_UNIQUE_ID, CKA_VALUE] };
    let unique = Answer::Value(Value::bytes(object.to_string()));
    assert_eq!(world.ask(&vault, &nobody, &read).unwrap().answers, [unique, Answer::Absent]);

    let template = || Template::new().with(CKA_LABEL, Value::bytes(*b"mine"));
    let write = WriteAttributes { object, template: template() };
    assert_eq!(code(world.ask(&vault, &client, &write)), FaultCode::ActionProhibited);
    let copy = CopyObject { object, template: template() };
    assert_eq!(code(world.ask(&vault, &client, &copy)), FaultCode::ActionProhibited);
    assert_eq!(code(world.ask(&vault, &client, &DestroyObject { object })), FaultCode::ActionProhibited);
    let forged = CreateObject {
        template: Template::new()
            .with(CKA_CLASS, Value::Ulong(CKO_PROFILE))
            .with(CKA_PROFILE_ID, Value::Ulong(CKP_COMPLETE_PROVIDER)),
    };
    assert_eq!(code(world.ask(&vault, &client, &forged)), FaultCode::AttributeValueInvalid);

    let init = InitToken { pin: Pin::new(SO_PIN), label: "again".into() };
    world.ask(&vault, &nobody, &init).unwrap();
    assert_eq!(world.ask(&vault, &nobody, &find(Template::new())).unwrap().objects, all);
}
