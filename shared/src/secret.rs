//! `Secret<T>`: a value that wipes itself and that no habit can leak.
//!
//! It has no `Clone`, no `Encode`, no `Deref`, and its `Debug` says nothing. Whoever needs the value
//! writes `expose()`, which a reviewer can search for.

use std::fmt;

use zeroize::Zeroize;

/// A secret value, wiped when dropped.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` into custody. The caller must not keep another copy of it.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one computation that needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
