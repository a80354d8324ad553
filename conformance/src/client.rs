//! An ordinary client, written with the `cryptoki` crate, whose calls are on record as those of `raw.rs` are.
//!
//! The crate loads the module itself and offers no place to listen, so each act here says which functions of the standard
//! the crate calls for it and with which arguments; what they answered is known from the crate's own result.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error;
use cryptoki::mechanism::{Mechanism, MechanismInfo, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::Stop;
use crate::raw::{Arg, Function as F, initialize_args};
use crate::rv;
use crate::trace::{Call, Recorder, Value};
use crate::tries::Ledger;

/// Room for what a function puts out, in bytes.
const ROOM: usize = 4096;

/// What comes of a call of the crate.
type Outcome<T> = Result<T, Stop>;

/// A function and its arguments.
type Step<'a> = (F, Vec<Arg<'a>>);

/// A module in use by an ordinary client.
pub struct Client<'b> {
    recorder: &'b Recorder,
    ledger: &'b Ledger,
    /// What the crate knows the module by.
    pub context: Pkcs11,
}

/// A session of it, with the user logged in.
pub struct ClientSession<'b> {
    recorder: &'b Recorder,
    session: Session,
}

/// Makes an act of the crate, and puts the functions that it calls on record.
fn tell<T>(
    recorder: &Recorder,
    steps: &[Step<'_>],
    made: impl FnOnce(&T) -> Vec<CK_ULONG>,
    act: impl FnOnce() -> Result<T, Error>,
) -> Outcome<T> {
    let calls: Vec<(F, Call)> = steps
        .iter()
        .map(|(function, arguments)| (*function, recorder.before(*function, arguments)))
        .collect();
    let result = act();
    let (failed, code) = match &result {
        Ok(_) => (None, CKR_OK),
        Err(error) => refusal(error, steps),
    };
    let mut new = result.as_ref().map(made).unwrap_or_default().into_iter();
    for (function, mut call) in calls {
        let is_last = failed == Some(function);
        for argument in &mut call.arguments {
            if let Value::New(handle) = argument {
                *handle = new.next();
            }
        }
        recorder.told(function, call, if is_last { code } else { CKR_OK });
        if is_last {
            break;
        }
    }
    result.map_err(|error| match (failed, error) {
        (Some(function), Error::Pkcs11(..)) => Stop::fail("CKR_OK", rv::Rv { function, code }.to_string()),
        (_, error) => Stop::fail("what the function is to give", error.to_string()),
    })
}

/// Which function refused, and with which code. The crate has words for both, which are the standard's names but for
/// their spelling.
fn refusal(error: &Error, steps: &[Step<'_>]) -> (Option<F>, CK_RV) {
    let Error::Pkcs11(code, function) = error else { return (None, CKR_OK) };
    let bare = |text: &str| text.replace('_', "").to_ascii_lowercase();
    let (function, code) = (bare(&format!("C{function:?}")), bare(&format!("CKR{code:?}")));
    let known = steps.iter().map(|(step, _)| *step).find(|step| bare(step.name()) == function);
    let code = rv::ALL.iter().copied().find(|other| bare(&rv::name(*other)) == code);
    (known.or_else(|| steps.last().map(|(step, _)| *step)), code.unwrap_or(CKR_GENERAL_ERROR))
}

fn none<T>(_: &T) -> Vec<CK_ULONG> {
    Vec::new()
}

impl<'b> Client<'b> {
    /// Loads the module and starts it.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn start(bench: &'b Bench) -> Outcome<Self> {
        let context = Pkcs11::new(&bench.target.module)
            .map_err(|error| Stop::fail("a module that an ordinary client loads", error.to_string()))?;
        let client = Self { recorder: bench.module.recorder(), ledger: bench.module.ledger(), context };
        let arguments = initialize_args(CKF_OS_LOCKING_OK, 0, 0);
        client.tell(F::C_Initialize, vec![Arg::of(&arguments)], |context| {
            context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        })?;
        Ok(client)
    }

    fn tell<T>(
        &self,
        function: F,
        arguments: Vec<Arg<'_>>,
        act: impl FnOnce(&Pkcs11) -> Result<T, Error>,
    ) -> Outcome<T> {
        tell(self.recorder, &[(function, arguments)], none, || act(&self.context))
    }

    /// Asks about the library, a slot or a token.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn ask<T>(
        &self,
        function: F,
        slot: Option<Slot>,
        act: impl FnOnce(&Pkcs11) -> Result<T, Error>,
    ) -> Outcome<T> {
        let mut room = [0_u8; ROOM];
        let info = Arg::slice_mut(&mut room);
        let slot = slot.map(|slot| Arg::number(slot.id()));
        self.tell(function, slot.into_iter().chain([info]).collect(), act)
    }

    /// The slots that have an initialised token.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn slots(&self) -> Outcome<Vec<Slot>> {
        let (mut list, mut count) = ([0 as CK_ULONG; 64], 64 as CK_ULONG);
        let arguments = vec![Arg::number(1), Arg::slice_mut(&mut list), Arg::of_mut(&mut count)];
        self.tell(F::C_GetSlotList, arguments, Pkcs11::get_slots_with_initialized_token)
    }

    /// The mechanisms of a token.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn mechanisms(&self, slot: Slot) -> Outcome<Vec<MechanismType>> {
        let (mut list, mut count) = ([0 as CK_ULONG; 512], 512 as CK_ULONG);
        let arguments = vec![Arg::number(slot.id()), Arg::slice_mut(&mut list), Arg::of_mut(&mut count)];
        self.tell(F::C_GetMechanismList, arguments, |context| context.get_mechanism_list(slot))
    }

    /// What a token says of a mechanism.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn mechanism_info(&self, slot: Slot, mechanism: MechanismType) -> Outcome<MechanismInfo> {
        let mut room = [0_u8; ROOM];
        let number = CK_MECHANISM_TYPE::from(mechanism);
        let arguments = vec![Arg::number(slot.id()), Arg::number(number), Arg::slice_mut(&mut room)];
        self.tell(F::C_GetMechanismInfo, arguments, |context| context.get_mechanism_info(slot, mechanism))
    }

    /// Opens a session and logs in.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn log_in(&self, slot: Slot, pin: &[u8]) -> Outcome<ClientSession<'b>> {
        let mut new = 0 as CK_ULONG;
        let flags = Arg::number(CKF_SERIAL_SESSION | CKF_RW_SESSION);
        let arguments = vec![Arg::number(slot.id()), flags, Arg::NULL, Arg::NULL, Arg::of_mut(&mut new)];
        let handle = |session: &Session| vec![session.handle()];
        let open = || self.context.open_rw_session(slot);
        let session = tell(self.recorder, &[(F::C_OpenSession, arguments)], handle, open)?;
        let opened = ClientSession { recorder: self.recorder, session };
        let secret = AuthPin::new(String::from_utf8_lossy(pin).into_owned().into());
        let arguments = vec![Arg::number(CKU_USER), Arg::slice(pin), Arg::number(pin.len() as CK_ULONG)];
        let steps = [(F::C_Login, arguments)];
        let call: Vec<Arg<'_>> = steps
            .iter()
            .flat_map(|(_, rest)| std::iter::once(Arg::number(0)).chain(rest.iter().copied()))
            .collect();
        let one = self
            .ledger
            .begin(F::C_Login, &call)
            .map_err(|()| Stop::Skipped("the user PIN is not tried any more".to_owned()))?;
        let mut code = CKR_OK;
        let told = opened.tell(&steps, none, |session| {
            let result = session.login(UserType::User, Some(&secret));
            code = result.as_ref().err().map_or(CKR_OK, |error| refusal(error, &steps).1);
            result
        });
        if let Some(one) = one {
            self.ledger.end(one, code);
        }
        told.map(|()| opened)
    }

    /// Stops the module.
    ///
    /// # Errors
    /// A failure of the crate.
    pub fn stop(self) -> Outcome<()> {
        let context = self.context.clone();
        self.tell(F::C_Finalize, vec![Arg::NULL], |_| context.finalize())
    }
}

/// The attributes of a template as the functions take them.
fn attributes(template: &[Attribute]) -> Vec<CK_ATTRIBUTE> {
    template.iter().map(CK_ATTRIBUTE::from).collect()
}

fn sized<T>(memory: &[T]) -> [Arg<'_>; 2] {
    [Arg::slice(memory), Arg::number(memory.len() as CK_ULONG)]
}

impl ClientSession<'_> {
    /// As the free function, with the session before the arguments.
    fn tell<T>(
        &self,
        steps: &[Step<'_>],
        made: impl FnOnce(&T) -> Vec<CK_ULONG>,
        act: impl FnOnce(&Session) -> Result<T, Error>,
    ) -> Outcome<T> {
        let session = Arg::number(self.session.handle());
        let with_session = steps.iter().map(|(function, rest)| {
            let all = std::iter::once(session).chain(rest.iter().copied());
            (*function, all.collect())
        });
        let steps: Vec<Step<'_>> = with_session.collect();
        tell(self.recorder, &steps, made, || act(&self.session))
    }

    /// Begins with a mechanism and a key, and then turns input into output.
    fn transform(
        &self,
        [init, single]: [F; 2],
        (mechanism, key): (&Mechanism<'_>, Option<ObjectHandle>),
        input: &[u8],
        act: impl FnOnce(&Session) -> Result<Vec<u8>, Error>,
    ) -> Outcome<Vec<u8>> {
        let raw = CK_MECHANISM::from(mechanism);
        let (mut out, mut length) = ([0_u8; ROOM], ROOM as CK_ULONG);
        let key = key.map(|key| Arg::number(key.handle()));
        let begin = std::iter::once(Arg::of(&raw)).chain(key).collect();
        let [data, size] = sized(input);
        let run = vec![data, size, Arg::slice_mut(&mut out), Arg::of_mut(&mut length)];
        self.tell(&[(init, begin), (single, run)], none, act)
    }

    /// `C_GenerateKeyPair`.
    ///
    /// # Errors
    /// A failure of the crate; so of all below.
    pub fn generate_key_pair(
        &self,
        mechanism: &Mechanism<'_>,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Outcome<(ObjectHandle, ObjectHandle)> {
        let raw = CK_MECHANISM::from(mechanism);
        let (first, second) = (attributes(public), attributes(private));
        let ([a, b], [c, d]) = (sized(&first), sized(&second));
        let mut new = [0 as CK_ULONG; 2];
        let [one, other] = &mut new;
        let arguments = vec![Arg::of(&raw), a, b, c, d, Arg::of_mut(one), Arg::of_mut(other)];
        let handles = |pair: &(ObjectHandle, ObjectHandle)| vec![pair.0.handle(), pair.1.handle()];
        self.tell(&[(F::C_GenerateKeyPair, arguments)], handles, |session| {
            session.generate_key_pair(mechanism, public, private)
        })
    }

    /// `C_GenerateKey`.
    pub fn generate_key(&self, mechanism: &Mechanism<'_>, template: &[Attribute]) -> Outcome<ObjectHandle> {
        let (raw, memory, mut new) = (CK_MECHANISM::from(mechanism), attributes(template), 0 as CK_ULONG);
        let [list, count] = sized(&memory);
        let arguments = vec![Arg::of(&raw), list, count, Arg::of_mut(&mut new)];
        let handle = |key: &ObjectHandle| vec![key.handle()];
        self.tell(&[(F::C_GenerateKey, arguments)], handle, |session| {
            session.generate_key(mechanism, template)
        })
    }

    /// `C_SignInit` and `C_Sign`.
    pub fn sign(&self, mechanism: &Mechanism<'_>, key: ObjectHandle, data: &[u8]) -> Outcome<Vec<u8>> {
        self.transform([F::C_SignInit, F::C_Sign], (mechanism, Some(key)), data, |session| {
            session.sign(mechanism, key, data)
        })
    }

    /// `C_VerifyInit` and `C_Verify`.
    pub fn verify(
        &self,
        mechanism: &Mechanism<'_>,
        key: ObjectHandle,
        data: &[u8],
        signature: &[u8],
    ) -> Outcome<()> {
        let raw = CK_MECHANISM::from(mechanism);
        let begin = vec![Arg::of(&raw), Arg::number(key.handle())];
        let run = [sized(data), sized(signature)].concat();
        self.tell(&[(F::C_VerifyInit, begin), (F::C_Verify, run)], none, |session| {
            session.verify(mechanism, key, data, signature)
        })
    }

    /// `C_EncryptInit` and `C_Encrypt`.
    pub fn encrypt(&self, mechanism: &Mechanism<'_>, key: ObjectHandle, data: &[u8]) -> Outcome<Vec<u8>> {
        self.transform([F::C_EncryptInit, F::C_Encrypt], (mechanism, Some(key)), data, |session| {
            session.encrypt(mechanism, key, data)
        })
    }

    /// `C_DecryptInit` and `C_Decrypt`.
    pub fn decrypt(&self, mechanism: &Mechanism<'_>, key: ObjectHandle, data: &[u8]) -> Outcome<Vec<u8>> {
        self.transform([F::C_DecryptInit, F::C_Decrypt], (mechanism, Some(key)), data, |session| {
            session.decrypt(mechanism, key, data)
        })
    }

    /// `C_DigestInit` and `C_Digest`.
    pub fn digest(&self, mechanism: &Mechanism<'_>, data: &[u8]) -> Outcome<Vec<u8>> {
        self.transform([F::C_DigestInit, F::C_Digest], (mechanism, None), data, |session| {
            session.digest(mechanism, data)
        })
    }

    /// `C_DigestInit`, `C_DigestUpdate` for each part, and `C_DigestFinal`.
    pub fn digest_parts(&self, mechanism: &Mechanism<'_>, parts: &[&[u8]]) -> Outcome<Vec<u8>> {
        let raw = CK_MECHANISM::from(mechanism);
        self.tell(&[(F::C_DigestInit, vec![Arg::of(&raw)])], none, |session| session.digest_init(mechanism))?;
        for part in parts {
            let step = (F::C_DigestUpdate, sized(part).to_vec());
            self.tell(&[step], none, |session| session.digest_update(part))?;
        }
        let (mut out, mut length) = ([0_u8; ROOM], ROOM as CK_ULONG);
        let last = vec![Arg::slice_mut(&mut out), Arg::of_mut(&mut length)];
        self.tell(&[(F::C_DigestFinal, last)], none, Session::digest_final)
    }

    /// `C_CreateObject`.
    pub fn create_object(&self, template: &[Attribute]) -> Outcome<ObjectHandle> {
        let (memory, mut new) = (attributes(template), 0 as CK_ULONG);
        let [list, count] = sized(&memory);
        let handle = |object: &ObjectHandle| vec![object.handle()];
        self.tell(&[(F::C_CreateObject, vec![list, count, Arg::of_mut(&mut new)])], handle, |session| {
            session.create_object(template)
        })
    }

    /// `C_FindObjectsInit`, `C_FindObjects` and `C_FindObjectsFinal`.
    pub fn find_objects(&self, template: &[Attribute]) -> Outcome<Vec<ObjectHandle>> {
        let (memory, mut found, mut count) = (attributes(template), [0 as CK_ULONG; 10], 0 as CK_ULONG);
        let begin = sized(&memory).to_vec();
        let next = vec![Arg::slice_mut(&mut found), Arg::number(10), Arg::of_mut(&mut count)];
        let steps =
            [(F::C_FindObjectsInit, begin), (F::C_FindObjects, next), (F::C_FindObjectsFinal, vec![])];
        let many = |found: &Vec<ObjectHandle>| vec![found.len() as CK_ULONG];
        self.tell(&steps, many, |session| session.find_objects(template))
    }

    /// `C_GetAttributeValue`.
    pub fn get_attributes(&self, object: ObjectHandle, kinds: &[AttributeType]) -> Outcome<Vec<Attribute>> {
        let asked = |kind: &AttributeType| CK_ATTRIBUTE {
            type_: (*kind).into(),
            pValue: std::ptr::null_mut(),
            ulValueLen: 0,
        };
        let memory: Vec<CK_ATTRIBUTE> = kinds.iter().map(asked).collect();
        let [list, count] = sized(&memory);
        let arguments = vec![Arg::number(object.handle()), list, count];
        self.tell(&[(F::C_GetAttributeValue, arguments)], none, |session| {
            session.get_attributes(object, kinds)
        })
    }

    /// `C_SetAttributeValue`.
    pub fn update_attributes(&self, object: ObjectHandle, template: &[Attribute]) -> Outcome<()> {
        let memory = attributes(template);
        let [list, count] = sized(&memory);
        let arguments = vec![Arg::number(object.handle()), list, count];
        self.tell(&[(F::C_SetAttributeValue, arguments)], none, |session| {
            session.update_attributes(object, template)
        })
    }

    /// `C_DestroyObject`.
    pub fn destroy_object(&self, object: ObjectHandle) -> Outcome<()> {
        let step = (F::C_DestroyObject, vec![Arg::number(object.handle())]);
        self.tell(&[step], none, |session| session.destroy_object(object))
    }

    /// `C_GenerateRandom`.
    pub fn random(&self, length: u32) -> Outcome<Vec<u8>> {
        let mut out = [0_u8; ROOM];
        let arguments = vec![Arg::slice_mut(&mut out), Arg::number(length.into())];
        self.tell(&[(F::C_GenerateRandom, arguments)], none, |session| session.generate_random_vec(length))
    }

    /// `C_CloseSession`.
    pub fn close(self) -> Outcome<()> {
        let Self { recorder, session } = self;
        let step = (F::C_CloseSession, vec![Arg::number(session.handle())]);
        tell(recorder, &[step], none, || session.close())
    }
}
