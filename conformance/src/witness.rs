//! Reads the arguments of a call, and what they point to, for its record.
//!
//! Memory is read through `/proc/self/mem`, where an address that leads nowhere is an error and not a crash, so calls with
//! lying lengths can be recorded too. PINs are never read into a record, nor are plaintexts that a call puts out, nor the
//! values of secret and private keys unless they are published or a stand-in of one repeated byte.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::*;

use crate::raw::{Arg, Function};
use crate::secrets::Secrets;
use crate::signature::{self, Kind};
use crate::trace::{Attribute, Block, Content, Null, Value};

/// Bytes of one piece of memory that are recorded.
const SHOWN: u64 = 512;

/// A length above this is a lie: nothing is read.
const LIKELY: u64 = 1 << 20;

/// What a PIN is called whose length cannot be its own.
pub const WRONG_LENGTH: &str = "a PIN with a wrong length";

/// Attributes of one template that are recorded.
const ATTRIBUTES: u64 = 64;

/// Bytes of `CK_C_INITIALIZE_ARGS`.
const INITIALIZE: u64 = 48;

/// Bytes of a word, and of the three words of an attribute or mechanism.
const WORD: usize = size_of::<CK_ULONG>();
const WORDS: usize = 3 * WORD;

/// See the module's header.
pub struct Witness {
    memory: Option<File>,
    secrets: Secrets,
    tells_keys: AtomicBool,
}

impl Witness {
    /// A witness that keeps these PINs to itself.
    pub fn new(secrets: Secrets) -> Self {
        let memory = File::open("/proc/self/mem").ok();
        Self { memory, secrets, tells_keys: AtomicBool::new(false) }
    }

    /// Reads the values of keys too from now on, if they are published, or no more.
    pub fn tell_keys(&self, are_published: bool) {
        self.tells_keys.store(are_published, Ordering::Relaxed);
    }

    /// The arguments of a call that is about to be made.
    pub fn arguments(&self, function: Function, arguments: &[Arg<'_>]) -> Vec<Value> {
        let next = |position: usize| arguments.get(position + 1).map_or(0, |next| next.word() as u64);
        let places = signature::of(function).iter().zip(arguments).enumerate();
        places.map(|(position, (kind, argument))| self.argument(*kind, argument, next(position))).collect()
    }

    /// An argument, with the number that follows it.
    fn argument(&self, kind: Kind, argument: &Arg<'_>, told: u64) -> Value {
        let (address, extent) = (argument.word(), argument.extent());
        match kind {
            Kind::Slot => Value::Slot(address as u64),
            Kind::Session => Value::Session(address as u64),
            Kind::Object => Value::Object(address as u64),
            Kind::Number | Kind::Size => Value::Number(address as u64),
            Kind::Mechanism => Value::Mechanism(self.mechanism(address)),
            Kind::Template | Kind::Question => Value::Template(self.template(address, told, extent)),
            Kind::Pin => Value::Input(self.pin(address, told, extent)),
            Kind::Input | Kind::Parameter => Value::Input(self.content(address, told, extent)),
            Kind::Label => Value::Input(self.content(address, 32, extent)),
            Kind::Arguments => Value::Input(self.content(address, INITIALIZE, extent)),
            Kind::Output | Kind::List | Kind::Handles if address == 0 => Value::Output(Content::Null(0)),
            Kind::Output | Kind::List | Kind::Handles => Value::Output(Content::Memory(Block::default())),
            Kind::Room => Value::Room(self.word(address).map(|room| (room, room))),
            Kind::NewSession | Kind::NewObject | Kind::NewNumber => Value::New(self.word(address)),
            Kind::Pointer if address == 0 => Value::Pointer(Null::Null),
            Kind::Pointer => Value::Pointer(Null::Given),
        }
    }

    /// What a call that has returned put where its arguments point.
    pub fn results(&self, function: Function, arguments: &[Arg<'_>], values: &mut [Value]) {
        let places = signature::of(function).iter().zip(arguments).zip(values).enumerate();
        for (position, ((kind, argument), value)) in places {
            let (address, extent) = (argument.word(), argument.extent());
            let after = |places: usize| {
                arguments.get(position + places).and_then(|argument| self.word(argument.word())).unwrap_or(0)
            };
            match (kind, &mut *value) {
                (Kind::Room, Value::Room(Some((_, after)))) => *after = self.word(address).unwrap_or(0),
                (Kind::NewSession | Kind::NewObject | Kind::NewNumber, Value::New(new)) => {
                    *new = self.word(address)
                }
                (Kind::Question, Value::Template(_)) => {
                    let count = arguments.get(position + 1).map_or(0, |count| count.word() as u64);
                    *value = Value::Template(self.template(address, count, extent));
                }
                (Kind::Output, Value::Output(output)) if address != 0 => {
                    *output = match signature::reveals(function) && !self.tells_keys.load(Ordering::Relaxed) {
                        true => Content::Secret("plaintext".to_owned(), after(1)),
                        false => self.content(address, after(1), extent),
                    };
                }
                (Kind::List, Value::Output(output)) if address != 0 => {
                    *output = self.content(address, after(1).saturating_mul(WORD as u64), extent);
                }
                (Kind::Handles, Value::Output(output)) if address != 0 => {
                    *output = self.content(address, after(2).saturating_mul(WORD as u64), extent);
                }
                _ => {}
            }
        }
    }

    /// A PIN is told by whose it is, and never by what it is.
    fn pin(&self, address: usize, length: u64, extent: usize) -> Content {
        if address == 0 {
            return Content::Null(length);
        }
        let whole = usize::try_from(length).ok().filter(|length| *length <= extent);
        let given = whole.and_then(|length| self.read(address, length));
        let known = given.and_then(|given| self.secrets.is(&given));
        let what = match known {
            Some(name) => name,
            None if whole.is_some() => "another PIN",
            None => WRONG_LENGTH,
        };
        Content::Secret(what.to_owned(), length)
    }

    fn mechanism(&self, address: usize) -> Option<(u64, Content)> {
        let [number, parameter, length] = self.words(address)?;
        let parameter = match self.content(usize::try_from(parameter).ok()?, length, usize::MAX) {
            Content::Memory(block) => Content::Memory(self.with_points(block, Layout::of(number))),
            other => other,
        };
        Some((number, parameter))
    }

    fn template(&self, address: usize, count: u64, extent: usize) -> Option<Vec<Attribute>> {
        let there = (extent / WORDS) as u64;
        let read =
            |entry: u64| self.words(address.wrapping_add(usize::try_from(entry).ok()?.wrapping_mul(WORDS)));
        let entries: Option<Vec<[u64; 3]>> = (0..count.min(there).min(ATTRIBUTES)).map(read).collect();
        let entries = entries.filter(|_| address != 0 && there > 0)?;
        let class = entries.iter().find(|[number, ..]| *number == CKA_CLASS);
        let class = class.and_then(|[_, value, _]| self.word(usize::try_from(*value).ok()?));
        let is_open = self.tells_keys.load(Ordering::Relaxed)
            || matches!(
                class,
                Some(CKO_DATA | CKO_CERTIFICATE | CKO_PUBLIC_KEY | CKO_HW_FEATURE | CKO_MECHANISM)
            );
        let attribute = |[number, value, length]: [u64; 3]| {
            let content = self.content(usize::try_from(value).unwrap_or(0), length, usize::MAX);
            let value = match content {
                Content::Memory(block) if is_secret(number) && !is_open && !is_stand_in(&block) => {
                    Content::Secret("key value".to_owned(), length)
                }
                Content::Memory(block)
                    if number & CKF_ARRAY_ATTRIBUTE != 0 && number != CKA_ALLOWED_MECHANISMS =>
                {
                    Content::Memory(self.with_points(block, Layout::LengthFollows))
                }
                other => other,
            };
            Attribute { number, value }
        };
        Some(entries.into_iter().map(attribute).collect())
    }

    /// Memory of a told length, as far as it is there.
    fn content(&self, address: usize, length: u64, extent: usize) -> Content {
        if address == 0 {
            return Content::Null(length);
        }
        if length > LIKELY {
            return Content::Unreadable(length);
        }
        let shown = usize::try_from(length.min(SHOWN)).unwrap_or(0).min(extent);
        let Some(bytes) = self.read(address, shown) else { return Content::Unreadable(length) };
        match self.secrets.within(&bytes) {
            Some(name) => Content::Secret(name.to_owned(), length),
            None => Content::Memory(Block { length, bytes, points: Vec::new() }),
        }
    }

    /// Follows the words that are addresses.
    fn with_points(&self, block: Block, layout: Layout) -> Block {
        let word = |at: usize| {
            let bytes = block.bytes.get(at..at + WORD)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        let mut points = Vec::new();
        for at in (0..block.bytes.len()).step_by(WORD) {
            let beside = match layout {
                Layout::LengthFollows => word(at + WORD),
                Layout::LengthPrecedes => at.checked_sub(WORD).and_then(word),
            };
            let (Some(address), Some(length)) = (word(at), beside) else { continue };
            let Ok(address) = usize::try_from(address) else { continue };
            if address < 1 << 16 || self.read(address, 1).is_none() {
                continue;
            }
            let length = length.min(SHOWN);
            let target = match self.content(address, length, usize::MAX) {
                Content::Memory(target) => target,
                _ => Block { length, ..Block::default() },
            };
            points.push((at, target));
        }
        Block { points, ..block }
    }

    fn word(&self, address: usize) -> Option<u64> {
        let bytes = self.read(address, WORD)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    fn words(&self, address: usize) -> Option<[u64; 3]> {
        let bytes = self.read(address, WORDS)?;
        let (words, _) = bytes.as_chunks::<WORD>();
        <[[u8; WORD]; 3]>::try_from(words).ok().map(|words| words.map(u64::from_ne_bytes))
    }

    fn read(&self, address: usize, length: usize) -> Option<Vec<u8>> {
        if address == 0 {
            return None;
        }
        let mut bytes = vec![0; length];
        self.memory.as_ref()?.read_exact_at(&mut bytes, address as u64).ok()?;
        Some(bytes)
    }
}

/// Where a structure has the length of what it points to.
#[derive(Clone, Copy)]
enum Layout {
    /// As in `CK_GCM_PARAMS` and most others.
    LengthFollows,
    /// As in `CK_ECDH1_DERIVE_PARAMS` and `CK_EDDSA_PARAMS`.
    LengthPrecedes,
}

impl Layout {
    fn of(mechanism: CK_MECHANISM_TYPE) -> Self {
        match mechanism {
            CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE | CKM_EDDSA => Self::LengthPrecedes,
            _ => Self::LengthFollows,
        }
    }
}

fn is_secret(attribute: CK_ATTRIBUTE_TYPE) -> bool {
    matches!(
        attribute,
        CKA_VALUE
            | CKA_PRIVATE_EXPONENT
            | CKA_PRIME_1
            | CKA_PRIME_2
            | CKA_EXPONENT_1
            | CKA_EXPONENT_2
            | CKA_COEFFICIENT
            | CKA_SEED
    )
}

/// One byte over and over is no secret.
fn is_stand_in(block: &Block) -> bool {
    block.length <= SHOWN && block.bytes.windows(2).all(|pair| matches!(pair, [one, next] if one == next))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::Pin;
    use crate::template::{Mechanism, Out, Template};

    fn witness() -> Witness {
        Witness::new(Secrets::new([("user PIN", &Some(Pin::new(b"secret-pin".to_vec()))), ("", &None)]))
    }

    fn text(function: Function, arguments: &[Arg<'_>]) -> String {
        serde_json::to_string(&witness().arguments(function, arguments)).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        crate::trace::hex_of(bytes)
    }

    #[test]
    fn a_pin_is_named_and_not_told() {
        let login = |pin: &[u8]| {
            let length = Arg::number(pin.len() as CK_ULONG);
            text(Function::C_Login, &[Arg::number(1), Arg::number(CKU_USER), Arg::slice(pin), length])
        };
        assert!(login(b"secret-pin").contains("user PIN"));
        assert!(!login(b"secret-pin").contains(&hex(b"secret")));
        assert!(
            login(b"secret-pig").contains("another PIN") && !login(b"secret-pig").contains(&hex(b"secret"))
        );
        let lying = [Arg::number(1), Arg::number(CKU_USER), Arg::slice(b"1234"), Arg::number(1 << 63)];
        assert!(text(Function::C_Login, &lying).contains("wrong length"));
        let elsewhere = [Arg::number(1), Arg::slice(b"my secret-pin, as data"), Arg::number(22)];
        assert!(text(Function::C_DigestUpdate, &elsewhere).contains("user PIN"));
    }

    #[test]
    fn a_key_is_not_told_but_for_a_stand_in() {
        let create = |template: &Template| {
            let [attributes, count] = template.args();
            let mut object = 0;
            text(Function::C_CreateObject, &[Arg::number(1), attributes, count, Arg::of_mut(&mut object)])
        };
        let key: Vec<u8> = (1..33).collect();
        assert!(create(&Template::secret(CKK_AES, &key)).contains("key value"));
        assert!(!create(&Template::secret(CKK_AES, &key)).contains("0102030405"));
        assert!(create(&Template::secret(CKK_AES, &[0x0b; 16])).contains(&hex(&[0x0b; 16])));
        assert!(create(&Template::data()).contains(&hex(b"value")));
    }

    #[test]
    fn a_mechanism_is_told_with_what_it_points_to() {
        let mechanism = Mechanism::gcm(b"initialvector", b"additional", 128);
        let seen = text(Function::C_EncryptInit, &[Arg::number(1), mechanism.arg(), Arg::number(2)]);
        assert!(seen.contains(&hex(b"initialvector")) && seen.contains(&hex(b"additional")), "{seen}");
    }

    #[test]
    fn lengths_that_lie_are_no_crash() {
        let data = [1_u8; 16];
        for length in [17, 1 << 30, 1 << 63, CK_ULONG::MAX] {
            let mut out = Out::room(8);
            let [buffer, room] = out.args();
            let arguments = [Arg::number(1), Arg::slice(&data), Arg::number(length), buffer, room];
            let seen = text(Function::C_Sign, &arguments);
            assert!(seen.contains(&length.to_string()), "{seen}");
            assert!(!seen.contains(&hex(&[1; 17])), "{seen}");
        }
        let nowhere = [Arg::number(1), Arg::number(4096), Arg::number(4096)];
        assert!(
            text(Function::C_FindObjectsInit, &nowhere).contains("null"),
            "an address that leads nowhere"
        );
    }

    #[test]
    fn what_a_call_puts_out_is_told_but_for_plaintexts() {
        let told = |function| {
            let mut out = Out::room(4);
            let [buffer, room] = out.args();
            let arguments = [Arg::number(1), Arg::NULL, Arg::number(0), buffer, room];
            let mut values = witness().arguments(function, &arguments);
            witness().results(function, &arguments, &mut values);
            serde_json::to_string(&values).unwrap()
        };
        assert!(told(Function::C_Sign).contains("a5a5a5a5"));
        assert!(!told(Function::C_Decrypt).contains("a5a5a5a5"));
    }
}
