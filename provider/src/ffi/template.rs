//! `CK_ATTRIBUTE` arrays: into a typed [`Template`], and back into a caller's buffers.

use pkcs11_sys::*;
use strongroom_shared::{
    message::Answer,
    object::{Attribute, Shape, Template, Value, shape},
    wire::DEFAULT_LIMIT,
};

use crate::{ffi::pointers::Input, rv::Error};

/// More attributes than any object has: a count beyond it is a mistake, and is not believed.
const MOST: CK_ULONG = 4096;

/// Reads the attributes one by one.
///
/// # Safety
/// `entries` is null or points to `count` attributes.
unsafe fn entries(entries: *const CK_ATTRIBUTE, count: CK_ULONG) -> Result<Vec<CK_ATTRIBUTE>, Error> {
    if count > MOST || (entries.is_null() && count > 0) {
        return Err(Error::ArgumentsBad);
    }
    // SAFETY: index < count, for which the caller vouched.
    Ok((0..count as usize).map(|index| unsafe { entries.add(index).read_unaligned() }).collect())
}

/// A template that says what an object is to be.
///
/// # Safety
/// `entries` is null or points to `count` attributes, whose values are null or as long as they say.
///
/// # Errors
/// `ArgumentsBad` for a null pointer or an impossible count, `AttributeValueInvalid` for a value that is not of
/// its attribute's shape, `AttributeTypeInvalid` for an array of templates: its pointers cannot travel.
pub(super) unsafe fn read(pointer: *const CK_ATTRIBUTE, count: CK_ULONG) -> Result<Template, Error> {
    // SAFETY: as the caller vouched.
    let entries = unsafe { entries(pointer, count) }?;
    // SAFETY: as the caller vouched.
    entries.iter().map(|entry| unsafe { attribute(entry) }).collect()
}

/// # Safety
/// The entry's value is null or as long as it says.
unsafe fn attribute(entry: &CK_ATTRIBUTE) -> Result<Attribute, Error> {
    let kind = entry.type_;
    // SAFETY: as the caller vouched.
    let bytes = unsafe { Input::new(entry.pValue.cast(), entry.ulValueLen) }.slice(DEFAULT_LIMIT as usize);
    let bytes = bytes.map_err(|_| Error::AttributeValueInvalid)?;
    let value = match shape(kind) {
        Shape::Bool => match bytes {
            [CK_FALSE] => Value::Bool(false),
            [CK_TRUE] => Value::Bool(true),
            _ => return Err(Error::AttributeValueInvalid),
        },
        Shape::Ulong => Value::Ulong(ulong(bytes)?),
        Shape::Mechanisms => {
            Value::Mechanisms(bytes.chunks(size_of::<CK_ULONG>()).map(ulong).collect::<Result<_, _>>()?)
        }
        Shape::Bytes if kind & CKF_ARRAY_ATTRIBUTE != 0 => return Err(Error::AttributeTypeInvalid),
        Shape::Bytes | Shape::Date => Value::bytes(bytes),
    };
    let attribute = Attribute { kind, value };
    if attribute.has_its_shape() { Ok(attribute) } else { Err(Error::AttributeValueInvalid) }
}

fn ulong(bytes: &[u8]) -> Result<CK_ULONG, Error> {
    bytes.try_into().map(CK_ULONG::from_ne_bytes).map_err(|_| Error::AttributeValueInvalid)
}

/// The types that `C_GetAttributeValue` asks for.
///
/// # Safety
/// `pointer` is null or points to `count` attributes.
///
/// # Errors
/// `ArgumentsBad` for a null pointer or an impossible count.
pub(super) unsafe fn kinds(
    pointer: *const CK_ATTRIBUTE,
    count: CK_ULONG,
) -> Result<Vec<CK_ATTRIBUTE_TYPE>, Error> {
    // SAFETY: as the caller vouched.
    Ok(unsafe { entries(pointer, count) }?.iter().map(|entry| entry.type_).collect())
}

/// Writes the answers into a caller's template: every one of them, whatever is wrong with others.
///
/// # Safety
/// `pointer` points to at least as many writable attributes as there are answers, whose values are null or as
/// long as they say, and writable.
///
/// # Errors
/// One of those that apply: `AttributeSensitive`, `AttributeTypeInvalid`, `BufferTooSmall`.
pub(super) unsafe fn fill(pointer: *mut CK_ATTRIBUTE, answers: &[Answer]) -> Result<(), Error> {
    let mut result = Ok(());
    for (index, answer) in answers.iter().enumerate() {
        // SAFETY: the caller vouched for an entry per answer.
        let place = unsafe { pointer.add(index) };
        // SAFETY: as above.
        let mut entry = unsafe { place.read_unaligned() };
        // SAFETY: the caller vouched for the entry's value.
        let one = unsafe { answer_one(&mut entry, answer) };
        if one.is_err() {
            entry.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        }
        // SAFETY: as above.
        unsafe { place.write_unaligned(entry) };
        result = result.and(one);
    }
    result
}

/// # Safety
/// The entry's value is null or as long as it says, and writable.
unsafe fn answer_one(entry: &mut CK_ATTRIBUTE, answer: &Answer) -> Result<(), Error> {
    let value = match answer {
        Answer::Value(value) => value,
        Answer::Sensitive => return Err(Error::AttributeSensitive),
        Answer::Absent => return Err(Error::AttributeTypeInvalid),
    };
    let needed = value.length() as CK_ULONG;
    if !entry.pValue.is_null() {
        if entry.ulValueLen < needed {
            return Err(Error::BufferTooSmall);
        }
        let write = |bytes: &[u8]| {
            // SAFETY: the caller vouched for ulValueLen ≥ needed writable bytes, and there are `needed` bytes.
            unsafe { bytes.as_ptr().copy_to_nonoverlapping(entry.pValue.cast(), bytes.len()) };
        };
        match value {
            Value::Bool(value) => write(&[CK_BBOOL::from(*value)]),
            Value::Ulong(value) => write(&value.to_ne_bytes()),
            Value::Bytes(bytes) => write(bytes),
            Value::Mechanisms(list) => {
                let bytes: Vec<u8> = list.iter().flat_map(|mechanism| mechanism.to_ne_bytes()).collect();
                write(&bytes);
            }
        }
    }
    entry.ulValueLen = needed;
    Ok(())
}
