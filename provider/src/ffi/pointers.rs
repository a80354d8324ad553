//! A caller's memory as safe values: [`Input`], [`Output`] and [`Place`].
//!
//! Whoever makes one vouches for the pointer; whether it is null, or its length possible, is checked at use, for
//! by then an operation may have to end over it. Memory is never assumed to be aligned, and input and output may
//! overlap: no reference to the output is ever made.

use std::{marker::PhantomData, slice};

use pkcs11_sys::{CK_BYTE, CK_ULONG};

use crate::{hsm, rv::Error};

/// Bytes that a caller passes (`pData`, `ulDataLen`).
pub struct Input<'a> {
    data: *const CK_BYTE,
    length: CK_ULONG,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// # Safety
    /// `data` is null or points to `length` readable bytes for `'a`.
    pub(super) const unsafe fn new(data: *const CK_BYTE, length: CK_ULONG) -> Self {
        Self { data, length, memory: PhantomData }
    }

    /// How many bytes the caller says there are.
    pub const fn length(&self) -> CK_ULONG {
        self.length
    }

    /// The bytes, if there are at most `most`.
    ///
    /// # Errors
    /// `ArgumentsBad` for a null pointer with a length or a length that no memory has, `DataLenRange` for more
    /// than `most`: nothing is read then.
    pub fn slice(&self, most: usize) -> Result<&'a [u8], Error> {
        let length = usize::try_from(self.length).map_err(|_| Error::ArgumentsBad)?;
        if isize::try_from(length).is_err() || (self.data.is_null() && length > 0) {
            return Err(Error::ArgumentsBad);
        }
        if length > most {
            return Err(Error::DataLenRange);
        }
        if length == 0 {
            return Ok(&[]);
        }
        // SAFETY: `new`'s caller vouched for `length` bytes at `data`, which is not null; length ≤ isize::MAX.
        Ok(unsafe { slice::from_raw_parts(self.data, length) })
    }
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() as CK_ULONG, memory: PhantomData }
    }
}

/// Where a caller wants a result of unknown length (`pSignature`, `pulSignatureLen`): the rule of two calls, once.
pub struct Output<'a, T: Copy = u8> {
    data: *mut T,
    length: *mut CK_ULONG,
    memory: PhantomData<&'a mut [T]>,
}

impl<'a, T: Copy> Output<'a, T> {
    /// # Safety
    /// `length` is null or points to a writable number; `data` is null or points to as many writable items as
    /// that number says; both for `'a`.
    pub(super) const unsafe fn new(data: *mut T, length: *mut CK_ULONG) -> Self {
        Self { data, length, memory: PhantomData }
    }

    /// A buffer whose length is in `length`, which becomes the result's.
    pub fn over(buffer: &'a mut [T], length: &'a mut CK_ULONG) -> Self {
        *length = buffer.len() as CK_ULONG;
        Self { data: buffer.as_mut_ptr(), length, memory: PhantomData }
    }

    /// The question how long the result is.
    pub fn query(length: &'a mut CK_ULONG) -> Self {
        Self { data: std::ptr::null_mut(), length, memory: PhantomData }
    }

    /// Whether the caller only asks how long the result is.
    pub const fn is_query(&self) -> bool {
        self.data.is_null()
    }

    /// Fails if there is no place for the length, for functions that may fail in other ways first.
    ///
    /// # Errors
    /// `ArgumentsBad`.
    pub const fn check(&self) -> Result<(), Error> {
        if self.length.is_null() { Err(Error::ArgumentsBad) } else { Ok(()) }
    }

    /// Room for `needed` items; none if only their number was asked for, which is then told.
    ///
    /// # Errors
    /// `ArgumentsBad` without a place for the length; `BufferTooSmall`, with the length told.
    pub fn reserve(&self, needed: usize) -> Result<Option<Reserved<'_, T>>, Error> {
        self.check()?;
        // SAFETY: `length` is not null, and its maker vouched for it.
        let capacity = unsafe { self.length.read_unaligned() };
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        if self.is_query() {
            self.tell(needed);
            return Ok(None);
        }
        if capacity < needed {
            self.tell(needed);
            return Err(Error::BufferTooSmall);
        }
        Ok(Some(Reserved { output: self, capacity }))
    }

    fn tell(&self, length: usize) {
        // SAFETY: `reserve` has seen that `length` is not null, and its maker vouched for it.
        unsafe { self.length.write_unaligned(length as CK_ULONG) };
    }
}

/// Room in a caller's buffer.
pub struct Reserved<'o, T: Copy> {
    output: &'o Output<'o, T>,
    capacity: usize,
}

impl<T: Copy> Reserved<'_, T> {
    /// Writes the result and its length.
    ///
    /// # Errors
    /// `Link::Malformed` if the server's result is longer than it can be: nothing is written.
    pub fn write(self, items: &[T]) -> Result<(), Error> {
        if items.len() > self.capacity {
            return Err(hsm::malformed("a result longer than it can be"));
        }
        // SAFETY: the maker vouched for `capacity` writable items at `data`, which is not null, and there are no
        // more; they are copied as bytes, so alignment does not matter. `items` is ours, so they do not overlap.
        unsafe {
            items.as_ptr().cast::<u8>().copy_to_nonoverlapping(self.output.data.cast(), size_of_val(items));
        }
        self.output.tell(items.len());
        Ok(())
    }
}

/// Where a caller wants one value (`phObject`, `pInfo`). Not null.
pub(super) struct Place<'a, T> {
    place: *mut T,
    memory: PhantomData<&'a mut T>,
}

impl<T> Place<'_, T> {
    /// # Safety
    /// `place` is null or points to a writable `T`.
    ///
    /// # Errors
    /// `ArgumentsBad` if it is null.
    pub unsafe fn new(place: *mut T) -> Result<Self, Error> {
        if place.is_null() { Err(Error::ArgumentsBad) } else { Ok(Self { place, memory: PhantomData }) }
    }

    /// Writes the value.
    pub fn put(self, value: T) {
        // SAFETY: not null, and `new`'s caller vouched for it.
        unsafe { self.place.write_unaligned(value) };
    }
}

/// A value that a caller passes by pointer.
///
/// # Safety
/// `pointer` is null or points to a readable `T`.
///
/// # Errors
/// `ArgumentsBad` if it is null.
pub(super) unsafe fn read<T: Copy>(pointer: *const T) -> Result<T, Error> {
    if pointer.is_null() {
        return Err(Error::ArgumentsBad);
    }
    // SAFETY: not null, and the caller vouched for it.
    Ok(unsafe { pointer.read_unaligned() })
}

/// A PIN. It may be empty, but it must be there: the token has no keypad of its own.
///
/// # Safety
/// As `Input::new`.
///
/// # Errors
/// `ArgumentsBad` for a null pointer, `PinLenRange` for a length that no PIN has.
pub(super) unsafe fn pin<'a>(data: *const CK_BYTE, length: CK_ULONG) -> Result<&'a [u8], Error> {
    const LONGEST: usize = 1 << 12;
    if data.is_null() {
        return Err(Error::ArgumentsBad);
    }
    // SAFETY: as the caller vouched.
    match unsafe { Input::new(data, length) }.slice(LONGEST) {
        Err(Error::DataLenRange) => Err(Error::PinLenRange),
        result => result,
    }
}
