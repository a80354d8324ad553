//! What a call carries besides numbers: attribute templates, mechanisms with their parameters, output buffers.
//!
//! Each owns the memory that its pointers name, so a check builds the exact bytes that it wants a module to see.

use std::ffi::c_void;
use std::ptr;

use cryptoki_sys::*;

use crate::raw::Arg;

/// What output memory holds before a call, to see whether a module wrote to it.
const UNTOUCHED: u8 = 0xa5;

/// A number that a module reads as `(CK_ULONG)-1`.
pub const UNAVAILABLE: CK_ULONG = CK_ULONG::MAX;

/// A list of attributes, to give or to ask for.
#[derive(Default)]
pub struct Template {
    attributes: Vec<CK_ATTRIBUTE>,
    memory: Vec<Box<[u8]>>,
}

impl Template {
    /// An empty template.
    pub fn new() -> Self {
        Self::default()
    }

    /// An object of a class, with the label by which the suite finds what it left behind.
    pub fn of_class(class: CK_OBJECT_CLASS) -> Self {
        Self::new().ulong(CKA_CLASS, class).bytes(CKA_LABEL, crate::bench::LABEL)
    }

    /// A data object of the session.
    pub fn data() -> Self {
        Self::of_class(CKO_DATA).bool(CKA_TOKEN, false).bool(CKA_PRIVATE, false).bytes(CKA_VALUE, b"value")
    }

    /// A secret key of the session, with its value.
    pub fn secret(key_type: CK_KEY_TYPE, value: &[u8]) -> Self {
        Self::of_class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, key_type)
            .bool(CKA_TOKEN, false)
            .bytes(CKA_VALUE, value)
    }

    /// The usages that the other half of the suite's keys have.
    pub fn usages(mut self, usages: &[CK_ATTRIBUTE_TYPE]) -> Self {
        for usage in usages {
            self = self.bool(*usage, true);
        }
        self
    }

    /// Adds a `CK_BBOOL`.
    pub fn bool(self, kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        self.bytes(kind, &[u8::from(value)])
    }

    /// Adds a `CK_ULONG`.
    pub fn ulong(self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds these bytes.
    pub fn bytes(self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        self.lying(kind, value, value.len() as CK_ULONG)
    }

    /// Adds these bytes, with a length that need not be theirs.
    pub fn lying(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8], length: CK_ULONG) -> Self {
        let mut memory: Box<[u8]> = value.into();
        self.attributes.push(CK_ATTRIBUTE {
            type_: kind,
            pValue: memory.as_mut_ptr().cast::<c_void>(),
            ulValueLen: length,
        });
        self.memory.push(memory);
        self
    }

    /// Adds these bytes at an odd address.
    pub fn misaligned(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        let mut memory: Box<[u8]> = [&[UNTOUCHED], value].concat().into();
        let address = memory.as_mut_ptr().wrapping_add(1).cast::<c_void>();
        let ulValueLen = value.len() as CK_ULONG;
        self.attributes.push(CK_ATTRIBUTE { type_: kind, pValue: address, ulValueLen });
        self.memory.push(memory);
        self
    }

    /// Adds a null pointer with a length.
    pub fn null(mut self, kind: CK_ATTRIBUTE_TYPE, length: CK_ULONG) -> Self {
        self.attributes.push(CK_ATTRIBUTE { type_: kind, pValue: ptr::null_mut(), ulValueLen: length });
        self.memory.push(Box::default());
        self
    }

    /// Asks for the length of an attribute.
    pub fn ask(self, kind: CK_ATTRIBUTE_TYPE) -> Self {
        self.null(kind, 0)
    }

    /// Asks for an attribute into this much room.
    pub fn room(self, kind: CK_ATTRIBUTE_TYPE, room: usize) -> Self {
        self.bytes(kind, &vec![UNTOUCHED; room])
    }

    /// Takes an attribute out, so that a check can leave out one of many.
    pub fn without(mut self, kind: CK_ATTRIBUTE_TYPE) -> Self {
        while let Some(position) = self.attributes.iter().position(|attribute| attribute.type_ == kind) {
            self.attributes.remove(position);
            self.memory.remove(position);
        }
        self
    }

    /// The length that the module put into an entry.
    pub fn length(&self, entry: usize) -> CK_ULONG {
        self.attributes.get(entry).map_or(UNAVAILABLE, |attribute| attribute.ulValueLen)
    }

    /// The value that the module put into an entry, empty if it put none.
    pub fn value(&self, entry: usize) -> &[u8] {
        let length = usize::try_from(self.length(entry)).unwrap_or(usize::MAX);
        self.memory.get(entry).and_then(|memory| memory.get(..length)).unwrap_or_default()
    }

    /// Whether the module wrote nothing into an entry's memory.
    pub fn is_untouched(&self, entry: usize) -> bool {
        self.memory.get(entry).is_some_and(|memory| memory.iter().all(|byte| *byte == UNTOUCHED))
    }

    /// The two arguments that a call takes for it.
    pub fn args(&self) -> [Arg<'_>; 2] {
        [Arg::slice(&self.attributes), self.count()]
    }

    /// The two arguments, where the module writes into it.
    pub fn args_mut(&mut self) -> [Arg<'_>; 2] {
        let count = self.attributes.len() as CK_ULONG;
        [Arg::slice_mut(&mut self.attributes), Arg::number(count)]
    }

    fn count(&self) -> Arg<'_> {
        Arg::number(self.attributes.len() as CK_ULONG)
    }
}

/// A word of a parameter: a number, or the address of memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A number.
    Number(CK_ULONG),
    /// The address of these bytes; null if there are none.
    Memory(Vec<u8>),
}

/// A mechanism and the memory of its parameter.
pub struct Mechanism {
    raw: Box<CK_MECHANISM>,
    words: Box<[CK_ULONG]>,
    bytes: Vec<Box<[u8]>>,
}

impl Mechanism {
    /// A mechanism without a parameter.
    pub fn plain(number: CK_MECHANISM_TYPE) -> Self {
        Self::null(number, 0)
    }

    /// A mechanism whose parameter is a null pointer with a length.
    pub fn null(number: CK_MECHANISM_TYPE, length: CK_ULONG) -> Self {
        let raw = CK_MECHANISM { mechanism: number, pParameter: ptr::null_mut(), ulParameterLen: length };
        Self { raw: Box::new(raw), words: Box::default(), bytes: Vec::new() }
    }

    /// A mechanism whose parameter is these bytes, such as an initialisation vector.
    pub fn bytes(number: CK_MECHANISM_TYPE, parameter: &[u8]) -> Self {
        let mut memory: Box<[u8]> = parameter.into();
        let mut mechanism = Self::null(number, parameter.len() as CK_ULONG);
        mechanism.raw.pParameter = memory.as_mut_ptr().cast();
        mechanism.bytes.push(memory);
        mechanism
    }

    /// A mechanism whose parameter is a structure of words: the numbers and pointers of the header, in its order.
    pub fn words(number: CK_MECHANISM_TYPE, words: &[CK_ULONG]) -> Self {
        let mut mechanism = Self::null(number, size_of_val(words) as CK_ULONG);
        mechanism.words = words.into();
        mechanism.raw.pParameter = mechanism.words.as_mut_ptr().cast();
        mechanism
    }

    /// A mechanism whose parameter is a structure with memory of its own.
    pub fn structure(number: CK_MECHANISM_TYPE, words: &[Word]) -> Self {
        let mut kept: Vec<Box<[u8]>> = Vec::new();
        let mut numbers = Vec::new();
        for word in words {
            numbers.push(match word {
                Word::Number(number) => *number,
                Word::Memory(bytes) if bytes.is_empty() => 0,
                Word::Memory(bytes) => {
                    let memory: Box<[u8]> = bytes.as_slice().into();
                    let address = memory.as_ptr().expose_provenance() as CK_ULONG;
                    kept.push(memory);
                    address
                }
            });
        }
        let mut mechanism = Self::words(number, &numbers);
        mechanism.bytes = kept;
        mechanism
    }

    /// `CK_GCM_PARAMS` (6.13, AES-GCM).
    pub fn gcm(iv: &[u8], aad: &[u8], tag_bits: CK_ULONG) -> Self {
        let kept: Vec<Box<[u8]>> = vec![iv.into(), aad.into()];
        let address = |bytes: &[u8]| bytes.as_ptr().expose_provenance() as CK_ULONG;
        let lengths = (iv.len() as CK_ULONG, aad.len() as CK_ULONG);
        let addresses = kept.iter().map(|bytes| address(bytes)).collect::<Vec<_>>();
        let [iv_at, aad_at] = <[CK_ULONG; 2]>::try_from(addresses).unwrap_or_default();
        let words = [iv_at, lengths.0, lengths.0 * 8, aad_at, lengths.1, tag_bits];
        let mut mechanism = Self::words(CKM_AES_GCM, &words);
        mechanism.bytes = kept;
        mechanism
    }

    /// `CK_KEY_DERIVATION_STRING_DATA` (6.43).
    pub fn derivation_data(number: CK_MECHANISM_TYPE, data: &[u8]) -> Self {
        let kept: Box<[u8]> = data.into();
        let address = kept.as_ptr().expose_provenance() as CK_ULONG;
        let mut mechanism = Self::words(number, &[address, data.len() as CK_ULONG]);
        mechanism.bytes.push(kept);
        mechanism
    }

    /// `CK_ECDH1_DERIVE_PARAMS` with no key derivation function and this public point (6.3).
    pub fn ecdh(point: &[u8]) -> Self {
        let kept: Box<[u8]> = point.into();
        let address = kept.as_ptr().expose_provenance() as CK_ULONG;
        let mut mechanism =
            Self::words(CKM_ECDH1_DERIVE, &[CKD_NULL, 0, 0, point.len() as CK_ULONG, address]);
        mechanism.bytes.push(kept);
        mechanism
    }

    /// `CK_AES_CTR_PARAMS` (6.11, AES with counter).
    pub fn ctr(bits: CK_ULONG, block: [u8; 16]) -> Self {
        let (high, low) = block.split_at(8);
        let word = |half: &[u8]| CK_ULONG::from_ne_bytes(half.try_into().unwrap_or_default());
        Self::words(CKM_AES_CTR, &[bits, word(high), word(low)])
    }

    /// `CK_RSA_PKCS_PSS_PARAMS` (6.1).
    pub fn pss(number: CK_MECHANISM_TYPE, hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, salt: CK_ULONG) -> Self {
        Self::words(number, &[hash, mgf, salt])
    }

    /// `CK_RSA_PKCS_OAEP_PARAMS` without a label (6.1).
    pub fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG) -> Self {
        Self::words(CKM_RSA_PKCS_OAEP, &[hash, mgf, CKZ_DATA_SPECIFIED, 0, 0])
    }

    /// The same parameter, said to be this long.
    pub fn of_length(mut self, length: CK_ULONG) -> Self {
        self.raw.ulParameterLen = length;
        self
    }

    /// Its number.
    pub fn number(&self) -> CK_MECHANISM_TYPE {
        self.raw.mechanism
    }

    /// The argument that a call takes for it.
    pub fn arg(&self) -> Arg<'_> {
        Arg::of(self.raw.as_ref())
    }
}

/// A buffer for output and the length beside it.
pub struct Out {
    buffer: Option<Vec<u8>>,
    length: CK_ULONG,
}

impl Out {
    /// Asks for the length only (5.2).
    pub const fn ask() -> Self {
        Self { buffer: None, length: 0 }
    }

    /// Gives this much room.
    pub fn room(room: usize) -> Self {
        Self { buffer: Some(vec![UNTOUCHED; room]), length: room as CK_ULONG }
    }

    /// The length that the module put.
    pub const fn length(&self) -> CK_ULONG {
        self.length
    }

    /// The output that the module put.
    pub fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        self.buffer.as_deref().and_then(|buffer| buffer.get(..length)).unwrap_or_default()
    }

    /// Whether the module wrote nothing into the buffer.
    pub fn is_untouched(&self) -> bool {
        self.buffer.as_deref().unwrap_or_default().iter().all(|byte| *byte == UNTOUCHED)
    }

    /// Whether these bytes stand in the buffer, wherever.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.buffer.as_deref().unwrap_or_default().windows(bytes.len().max(1)).any(|part| part == bytes)
    }

    /// The two arguments that a call takes for it.
    pub fn args(&mut self) -> [Arg<'_>; 2] {
        let buffer = self.buffer.as_deref_mut().map_or(Arg::NULL, Arg::slice_mut);
        [buffer, Arg::of_mut(&mut self.length)]
    }
}
