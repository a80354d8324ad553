//! Random numbers (PKCS#11 3.1, section 5.21).

use strongroom_shared::{fault::FaultCode, message::*, wire::Handle};
use zeroize::Zeroizing;

use super::{Context, Error, Vault};
use crate::platform::Platform;

impl<P: Platform> Handle<GenerateRandom> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, call: GenerateRandom) -> Result<Bytes, Error> {
        // The reply must fit a frame, with a little room for its header and its CBOR.
        if call.length > self.settings.frame_bytes.saturating_sub(64) {
            return Err(Error::caller(FaultCode::ArgumentsBad, "more random bytes than one frame can carry"));
        }
        let mut bytes = Zeroizing::new(vec![0; call.length as usize]);
        self.platform.fill(&mut bytes);
        Ok(Bytes { bytes: SecretBytes(bytes.into()) })
    }
}

impl<P: Platform> Handle<SeedRandom> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SeedRandom) -> Result<Done, Error> {
        self.platform.stir(&call.seed);
        self.record_done(context)?;
        Ok(Done {})
    }
}
