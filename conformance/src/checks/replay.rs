//! Replays a test case of the profiles, and compares what may not vary.

use cryptoki_sys::*;

use crate::bench::{Bench, Slots};
use crate::check::{Stop, Verdict, ensure};
use crate::checks::profiles::key_pair;
use crate::profiles::transcripts::{PRIVATE_KEY, PUBLIC_KEY, Step, Transcript};
use crate::raw::{Arg, Function as F};
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

/// What a test case binds.
struct Replay<'b> {
    bench: &'b Bench,
    slot: CK_SLOT_ID,
    session: Option<(Session<'b>, CK_FLAGS)>,
    object: Option<(CK_OBJECT_HANDLE, CK_OBJECT_CLASS)>,
}

/// Makes the calls of a test case. The module is initialised before, and is not after.
///
/// # Errors
/// A failure that names the step.
pub fn replay(bench: &Bench, transcript: &Transcript) -> Verdict {
    let mut replay = Replay { bench, slot: bench.slot()?, session: None, object: None };
    for (number, step) in transcript.steps.iter().enumerate() {
        replay.make(*step).map_err(|stop| match stop {
            Stop::Fail { expected, seen, grade } => {
                Stop::Fail { expected, seen: format!("step {}, {step:?}: {seen}", number + 1), grade }
            }
            other => other,
        })?;
    }
    Ok(())
}

impl<'b> Replay<'b> {
    fn make(&mut self, step: Step) -> Verdict {
        match step {
            Step::Initialize => self.initialize(),
            Step::Info => self.info(),
            Step::SlotList => self.slot_list(),
            Step::SlotInfo => self.slot_info(),
            Step::TokenInfo => self.token_info(),
            Step::MechanismList => self.bench.mechanisms().map(drop),
            Step::MechanismInfo => self.mechanism_info(),
            Step::OpenSession(flags) => self.open(flags),
            Step::SessionInfo(state) => self.session_info(state),
            Step::Login => self.session()?.login(CKU_USER, &self.bench.pin()?).ok(),
            Step::KeyPair => key_pair(&self.session()?, PUBLIC_KEY, PRIVATE_KEY),
            Step::Find(class, label) => self.find(class, label),
            Step::Attributes(kinds) => self.attributes(kinds),
            Step::Sign(mechanism) => self.sign(mechanism),
            Step::Logout => self.session()?.logout().ok(),
            Step::CloseSession => self.session()?.close().ok(),
            Step::Finalize => self.bench.module.call(F::C_Finalize, &[Arg::NULL]).ok(),
        }
    }

    fn session(&self) -> Result<Session<'b>, Stop> {
        let (session, _) = self.session.ok_or_else(|| Stop::Skipped("no session is open".to_owned()))?;
        Ok(session)
    }

    fn initialize(&self) -> Verdict {
        self.bench.module.call(F::C_Finalize, &[Arg::NULL]).ok()?;
        let arguments = self.bench.initialize_args(CKF_OS_LOCKING_OK, 0);
        self.bench.module.call(F::C_Initialize, &[Arg::of(&arguments)]).ok()
    }

    fn info(&self) -> Verdict {
        let mut info = CK_INFO::default();
        self.bench.module.call(F::C_GetInfo, &[Arg::of_mut(&mut info)]).ok()?;
        ensure(info.flags == 0, "flags 0", format!("{:#x}", info.flags))?;
        let major = info.cryptokiVersion.major;
        ensure(major == 2 || major == 3, "version 2 or 3", major.to_string())
    }

    fn slot_list(&self) -> Verdict {
        let slots = self.bench.slots(Slots::WithToken)?;
        ensure(slots.contains(&self.slot), format!("the token's slot {}", self.slot), format!("{slots:?}"))
    }

    fn slot_info(&self) -> Verdict {
        let mut info = CK_SLOT_INFO::default();
        let arguments = [Arg::number(self.slot), Arg::of_mut(&mut info)];
        self.bench.module.call(F::C_GetSlotInfo, &arguments).ok()?;
        ensure(info.flags & CKF_TOKEN_PRESENT != 0, "CKF_TOKEN_PRESENT", format!("{:#x}", info.flags))
    }

    fn token_info(&self) -> Verdict {
        let info = self.bench.token_info(self.slot)?;
        ensure(info.flags & CKF_TOKEN_INITIALIZED != 0, "CKF_TOKEN_INITIALIZED", format!("{:#x}", info.flags))
    }

    fn mechanism_info(&self) -> Verdict {
        let all = self.bench.mechanisms()?;
        all.iter().try_for_each(|mechanism| self.bench.offers(*mechanism, 0).map(drop))
    }

    fn open(&mut self, flags: CK_FLAGS) -> Verdict {
        self.session = Some((self.bench.open(flags)?, flags));
        Ok(())
    }

    fn session_info(&self, state: CK_STATE) -> Verdict {
        let Some((session, flags)) = self.session else { return self.session().map(drop) };
        let info = session.info()?;
        let (expected, seen) = ((self.slot, state, flags), (info.slotID, info.state, info.flags));
        ensure(expected == seen, format!("slot, state and flags {expected:?}"), format!("{seen:?}"))
    }

    fn find(&mut self, class: CK_OBJECT_CLASS, label: Option<&[u8]>) -> Verdict {
        let template = Template::new().ulong(CKA_CLASS, class);
        let template = match label {
            Some(label) => template.bytes(CKA_LABEL, label),
            None => template,
        };
        let found = self.session()?.find(&template)?;
        let Some(object) = found.last() else { return Err(Stop::NotOffered) };
        self.object = Some((*object, class));
        Ok(())
    }

    fn attributes(&self, kinds: &[CK_ATTRIBUTE_TYPE]) -> Verdict {
        let Some((object, class)) = self.object else { return Err(Stop::NotOffered) };
        for kind in kinds {
            let value = self.session()?.attribute(object, *kind)?;
            if *kind == CKA_CLASS {
                ensure(value == class.to_ne_bytes(), format!("class {class}"), format!("{value:?}"))?;
            }
        }
        Ok(())
    }

    fn sign(&self, mechanism: CK_MECHANISM_TYPE) -> Verdict {
        self.bench.offers(mechanism, CKF_SIGN)?;
        let Some((key, _)) = self.object else { return Err(Stop::NotOffered) };
        let session = self.session()?;
        session.init(F::C_SignInit, &Mechanism::plain(mechanism), Some(key)).ok()?;
        let mut asked = Out::ask();
        session.run(F::C_Sign, b"message", &mut asked).ok()?;
        let mut signature = Out::room(usize::try_from(asked.length()).unwrap_or(0).min(4096));
        session.run(F::C_Sign, b"message", &mut signature).ok()?;
        ensure(!signature.bytes().is_empty(), "a signature", "no byte")
    }
}
