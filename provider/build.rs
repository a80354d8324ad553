//! Keeps the module mapped after `dlclose`.
//!
//! Thread-local destructors of the standard library and of AWS-LC live in this file; a host that unloads it
//! while a thread still runs would jump into nothing when that thread ends. `C_Finalize` frees everything else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
