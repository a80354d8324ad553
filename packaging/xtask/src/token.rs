//! A token as `pkcs11-tool` sees it: whichever module, ours or another's.

use crate::{Outcome, shell::Shell};

/// The security officer's PIN of tokens made for a demo or test.
pub const SO_PIN: &str = "31415926";
/// The user's PIN of tokens made for a demo or test.
pub const PIN: &str = "27182818";

/// A token behind a module.
#[derive(Debug)]
pub struct Token {
    /// With the variables that the module needs.
    pub shell: Shell,
    /// The module's path.
    pub module: String,
    /// The token's label.
    pub label: String,
}

impl Token {
    /// Runs `pkcs11-tool` with the module.
    ///
    /// # Errors
    /// It failed.
    pub fn tool(&self, words: &[&str]) -> Outcome<String> {
        self.shell.run(&[&["pkcs11-tool", "--module", &self.module], words].concat())
    }

    /// Runs `pkcs11-tool` as the user.
    ///
    /// # Errors
    /// It failed.
    pub fn user(&self, words: &[&str]) -> Outcome<String> {
        self.tool(&[&["--token-label", &self.label, "--login", "--pin", PIN], words].concat())
    }

    /// Initialises the token in the first slot, and the user's PIN.
    ///
    /// # Errors
    /// The module refuses.
    pub fn initialise(&self) -> Outcome {
        self.tool(&["--slot-index", "0", "--init-token", "--label", &self.label, "--so-pin", SO_PIN])?;
        let officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        self.tool(
            &[&["--token-label", &self.label], &officer[..], &["--init-pin", "--new-pin", PIN]].concat(),
        )?;
        Ok(())
    }

    /// Generates a key pair; `kind` as `pkcs11-tool` names it, such as `EC:prime256v1`.
    ///
    /// # Errors
    /// The module refuses.
    pub fn generate(&self, kind: &str, id: &str, label: &str) -> Outcome {
        self.user(&["--keypairgen", "--key-type", kind, "--id", id, "--label", label])?;
        Ok(())
    }
}
