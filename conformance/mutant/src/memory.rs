//! The caller's memory, by its address: what a call's words point to.
//!
//! Unsound by design, as a C function is: the addresses are the caller's, and so is the promise that they are good.

#![allow(unsafe_code)]

use std::ptr;

/// Memory that a fault lends to the real module, by address.
pub fn address<T: ?Sized>(memory: &mut T) -> usize {
    ptr::from_mut(memory).cast::<u8>().expose_provenance()
}

/// What stands at an address, unless it is null.
pub fn read<T: Copy>(address: usize) -> Option<T> {
    // SAFETY: the caller of the function gives a pointer to a `T` or null, and the function's arguments say so.
    (address != 0).then(|| unsafe { ptr::with_exposed_provenance::<T>(address).read_unaligned() })
}

/// As many as this, one after the other; none from null.
pub fn list<T: Copy>(address: usize, count: usize) -> Vec<T> {
    let count = if address == 0 { 0 } else { count };
    (0..count).filter_map(|number| read(address.checked_add(number * size_of::<T>())?)).collect()
}

/// Puts a value at an address, unless it is null.
pub fn write<T>(address: usize, value: T) {
    if address != 0 {
        // SAFETY: the caller of the function gives room for a `T` or null.
        unsafe { ptr::with_exposed_provenance_mut::<T>(address).write_unaligned(value) }
    }
}

/// Puts values one after the other, unless the address is null.
pub fn put<T: Copy>(address: usize, values: &[T]) {
    for (number, value) in values.iter().enumerate().filter(|_| address != 0) {
        write(address + number * size_of::<T>(), *value);
    }
}

/// What a careless module does with a null pointer: the process dies.
pub fn crash() {
    // SAFETY: none. Writing to null is the fault, and the process is there to be lost.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) }
}
