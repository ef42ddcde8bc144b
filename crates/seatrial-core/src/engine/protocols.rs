//! From the name of a protocol and its options to the thing that speaks it.

use crate::engine::plan::{LoadPlan, ProtocolKind};
use crate::error::CoreError;
use crate::transport::Protocol;
use crate::transport::echo::{Echo, EchoOptions};
use crate::transport::grpc::{Grpc, GrpcOptions};
use crate::transport::http::{Http, HttpOptions};
use crate::transport::memcached::{Memcached, MemcachedOptions};
use crate::transport::options::Options;
use crate::transport::resp::{Resp, RespOptions};
use crate::transport::rpc::{Rpc, RpcOptions};
use crate::transport::target::Target;
#[cfg(feature = "tls")]
use crate::transport::{target::SocketTarget, tls};

/// The options of a load, read once for all of its threads.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    spoken: Spoken,
    #[cfg(feature = "tls")]
    tls: Option<tls::TlsSetup>,
}

#[derive(Clone, Debug)]
enum Spoken {
    Echo(EchoOptions),
    Rpc(RpcOptions),
    Http(HttpOptions),
    Grpc(GrpcOptions),
    Resp(RespOptions),
    Memcached(MemcachedOptions),
}

/// What is done with a protocol once it is known which one it is.
pub(super) trait Speaker {
    /// What comes of it.
    type Output;

    /// Does it.
    fn speak<P: Protocol>(self, protocol: P) -> Result<Self::Output, CoreError>;
}

impl Speech {
    /// Reads the options of the plan.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for names and values that the protocol does not know.
    pub fn read(plan: &LoadPlan) -> Result<Self, CoreError> {
        #[cfg(feature = "tls")]
        if plan.is_tls() {
            let own = plan
                .options
                .iter()
                .filter(|(name, _)| !name.starts_with(tls::PREFIX));
            let own = own
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            return Ok(Self {
                spoken: Spoken::read(plan, &own)?,
                tls: Some(tls::TlsSetup::read(&plan.options, alpn(plan.protocol))?),
            });
        }
        Ok(Self {
            spoken: Spoken::read(plan, &plan.options)?,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Whether requests tell the server how much work they ask for.
    pub fn carries_demand(&self) -> bool {
        match &self.spoken {
            Spoken::Echo(_) | Spoken::Memcached(_) => false,
            Spoken::Rpc(_) => true,
            Spoken::Resp(options) => options.carries_demand(),
            Spoken::Http(options) => options.carries_demand(),
            Spoken::Grpc(options) => options.is_load(),
        }
    }

    /// The same, but request `i` writes key `i`, and how many keys there are; `None` when
    /// nothing is to be written before the load.
    pub fn for_preload(&self) -> Option<(Self, u64)> {
        let (spoken, count) = match &self.spoken {
            Spoken::Resp(options) => {
                let (options, count) = options.for_preload()?;
                (Spoken::Resp(options), count)
            }
            Spoken::Memcached(options) => {
                let (options, count) = options.for_preload()?;
                (Spoken::Memcached(options), count)
            }
            Spoken::Echo(_) | Spoken::Rpc(_) | Spoken::Http(_) | Spoken::Grpc(_) => return None,
        };
        let mut speech = self.clone();
        speech.spoken = spoken;
        Some((speech, count))
    }

    /// Makes the protocol for one thread and hands it over.
    pub fn speak<S: Speaker>(&self, plan: &LoadPlan, speaker: S) -> Result<S::Output, CoreError> {
        let payload_bytes = plan.payload_bytes as usize;
        match &self.spoken {
            Spoken::Echo(options) => self.wrap(plan, Echo::new(payload_bytes, *options), speaker),
            Spoken::Rpc(options) => self.wrap(
                plan,
                Rpc::new(plan.operation, payload_bytes, *options),
                speaker,
            ),
            Spoken::Http(options) => {
                let hosts: Vec<_> = plan.targets.iter().map(Target::host).collect();
                self.wrap(plan, Http::new(options.clone(), &hosts), speaker)
            }
            Spoken::Grpc(options) => {
                let size = (payload_bytes, plan.depth);
                let grpc = Grpc::new(options, plan.operation, size, &plan.targets);
                self.wrap(plan, grpc, speaker)
            }
            Spoken::Resp(options) => self.wrap(plan, Resp::new(options.clone()), speaker),
            Spoken::Memcached(options) => self.wrap(plan, Memcached::new(options.clone()), speaker),
        }
    }

    /// Puts TLS around the protocol if the targets ask for it.
    #[cfg(feature = "tls")]
    fn wrap<P: Protocol, S: Speaker>(
        &self,
        plan: &LoadPlan,
        protocol: P,
        speaker: S,
    ) -> Result<S::Output, CoreError> {
        let Some(setup) = &self.tls else {
            return speaker.speak(protocol);
        };
        let addresses = plan.targets.iter().filter_map(|target| match target {
            Target::Socket(SocketTarget::Tls(address)) => Some(address.ip()),
            _ => None,
        });
        speaker.speak(tls::Tls::new(protocol, setup.clone(), addresses.collect()))
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_self)] // the same call as with TLS
    fn wrap<P: Protocol, S: Speaker>(
        &self,
        _plan: &LoadPlan,
        protocol: P,
        speaker: S,
    ) -> Result<S::Output, CoreError> {
        speaker.speak(protocol)
    }
}

impl Spoken {
    fn read(plan: &LoadPlan, options: &Options) -> Result<Self, CoreError> {
        match plan.protocol {
            ProtocolKind::Echo => EchoOptions::read(options, plan.is_udp()).map(Self::Echo),
            ProtocolKind::Rpc => RpcOptions::read(options).map(Self::Rpc),
            ProtocolKind::Http => HttpOptions::read(options).map(Self::Http),
            ProtocolKind::Grpc => GrpcOptions::read(options).map(Self::Grpc),
            ProtocolKind::Resp => RespOptions::read(options, plan.seed).map(Self::Resp),
            ProtocolKind::Memcached => {
                MemcachedOptions::read(options, plan.seed).map(Self::Memcached)
            }
        }
    }
}

/// What a protocol asks for when TLS agrees on one.
#[cfg(feature = "tls")]
const fn alpn(protocol: ProtocolKind) -> &'static [&'static str] {
    match protocol {
        ProtocolKind::Http => &["http/1.1"],
        ProtocolKind::Grpc => &["h2"],
        ProtocolKind::Echo | ProtocolKind::Rpc | ProtocolKind::Resp | ProtocolKind::Memcached => {
            &[]
        }
    }
}
