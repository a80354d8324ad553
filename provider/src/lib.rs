//! The Strongroom PKCS#11 module.
