//! `hsmctl init`: a new server, ready to start.
//!
//! Everything is made in a folder of another name, which gets its own when it is complete.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use strongroom_shared::secret::Secret;
use zeroize::Zeroizing;

use super::{
    error::CtlError,
    folder::{NewFolder, Server},
    known::Pin,
    output::{Format, say},
};
use crate::{
    certificates::{pem, request},
    config::{Config, TEMPLATE},
    process::Failure,
    vault::{Initialised, Requests},
};

/// How the vault makes its store in a configuration's state folder: with its own CA, under this root key.
pub type Initialise = fn(&Config, Secret<[u8; 32]>, &Requests) -> Result<Initialised, Failure>;

/// Makes a new server's state folder.
#[derive(Debug, Args)]
pub struct Init {
    /// The folder to make: configuration, root key, store, TLS files and a first administrator's folder.
    #[arg(long)]
    state: PathBuf,
    /// Where the server is to listen.
    #[arg(long, default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// A host name or IP address by which clients will know the server, beside localhost; may be repeated.
    #[arg(long = "name", value_name = "HOST_OR_IP")]
    names: Vec<String>,
    /// A port at which other nodes of a cluster listen, to which alone this server may connect; may be repeated.
    #[arg(long = "cluster-port", value_name = "PORT")]
    cluster_ports: Vec<u16>,
    /// For how many days the server's and the administrator's certificates are to be good.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

impl Init {
    /// Makes the folder.
    ///
    /// # Errors
    /// There is something in its place already, or it cannot be written; nothing is left behind then.
    pub fn run(&self, format: Format, initialise: Initialise) -> Result<(), CtlError> {
        let folder = NewFolder::start(&self.state)?;
        let (text, mut config) = self.configuration()?;
        config.resolve(folder.path());
        folder.write("server.toml", &text)?;

        let mut root_key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *root_key).map_err(|error| CtlError::new(error.to_string()))?;
        folder.write_secret("root.key", &*root_key)?;

        let name = |error| CtlError::new(format!("{error}"));
        let (server_key, server) = request("server").map_err(name)?;
        let (admin_key, administrator) = request("admin").map_err(name)?;
        let requests = Requests { server, names: config.names.clone(), administrator, days: self.days };
        let made = initialise(&config, Secret::new(*root_key), &requests)
            .map_err(|error| CtlError::new(format!("the store cannot be made: {error}")))?;

        let authority = pem("CERTIFICATE", &made.authority);
        folder.make_folder("tls")?;
        folder.write("tls/ca.pem", &authority)?;
        folder.write("tls/server.pem", &pem("CERTIFICATE", &made.server))?;
        folder.write_secret("tls/server.key", pem("PRIVATE KEY", &server_key).as_bytes())?;

        let admin = NewFolder::start(&folder.path().join("admin"))?;
        admin.write_secret("client.key", pem("PRIVATE KEY", &admin_key).as_bytes())?;
        admin.write_client(&pem("CERTIFICATE", &made.administrator), &authority, &self.server(&config))?;
        Pin(made.node).write(admin.path())?;
        admin.finish()?;
        folder.finish()?;
        self.tell(format)
    }

    /// The text of `server.toml`, and what it says.
    fn configuration(&self) -> Result<(String, Config), CtlError> {
        let defaults = Config::default();
        let mut names = self.names.clone();
        names.extend(defaults.names.iter().filter(|name| !self.names.contains(name)).cloned());
        let line = |key: &str, value: toml::Value| format!("{key} = {value}\n");
        let listed = |names: Vec<String>| toml::Value::from(names);
        let ports =
            |ports: &[u16]| toml::Value::from(ports.iter().map(|p| i64::from(*p)).collect::<Vec<_>>());
        let text = TEMPLATE
            .replace(
                &line("listen", defaults.listen.to_string().into()),
                &line("listen", self.listen.to_string().into()),
            )
            .replace(&line("names", listed(defaults.names)), &line("names", listed(names.clone())))
            .replace(
                &line("ports", ports(&defaults.cluster.ports)),
                &line("ports", ports(&self.cluster_ports)),
            );
        let config: Config = toml::from_str(&text).map_err(|error| CtlError::new(error.to_string()))?;
        // The template's lines may not drift away from the ones that are looked for here.
        let ports = &config.cluster.ports;
        if config.listen != self.listen || config.names != names || *ports != self.cluster_ports {
            return Err(CtlError::new("server.toml cannot be made from its template"));
        }
        Ok((text, config))
    }

    /// Where the administrator finds the server: from this machine, by a name that is in its certificate.
    fn server(&self, config: &Config) -> Server {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let name = config.names.first().cloned().unwrap_or_default();
        Server { address: address.to_string(), name }
    }

    fn tell(&self, format: Format) -> Result<(), CtlError> {
        let state = self.state.display();
        let text = format!(
            "made {state}: keep a copy of {state}/root.key elsewhere, without it the keys are lost\n\
             start the server:  hsm-server --config {state}/server.toml\n\
             administer it:     export STRONGROOM_ADMIN={state}/admin"
        );
        say(format, &text).map_err(|error| CtlError::file(Path::new("standard output"), error))
    }
}
