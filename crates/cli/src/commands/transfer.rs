//! `rota admin export` and `rota admin import`: all records of a control plane that is stopped, as lines of JSON.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rota_store::Error;
use rota_store::transfer::Counts;
use serde_json::json;

use super::storage::{PartialFile, is_standard};
use super::{replica, serve};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{Out, Reporter};
use crate::private;

/// Bytes of an export that are written or read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The store of a control plane.
#[derive(Debug, Args)]
struct Place {
    /// Data directory of the control plane, if its store is a file
    #[arg(long, value_name = "DIR", required_unless_present = "store", conflicts_with = "store")]
    data_dir: Option<PathBuf>,
    /// PostgreSQL database of the control plane: its URL, or a file that contains it
    #[arg(long, value_name = "URL|FILE")]
    store: Option<String>,
    /// File with the password of --store
    #[arg(long, value_name = "FILE", requires = "store")]
    store_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// File to create; `-` writes to the standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct Import {
    /// File of `rota admin export`; `-` reads the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// A store that no control plane uses.
enum Opened {
    File(PathBuf),
    Database(Box<rota_store_postgres::Options>),
}

impl Place {
    /// Opens a store that a control plane has used.
    fn open_existing(self) -> anyhow::Result<Opened> {
        if let Some(data_dir) = &self.data_dir
            && !serve::database(data_dir).exists()
        {
            let message = format!("{} has no store of a control plane", data_dir.display());
            return Err(Failure::usage(message).hint("name the data directory of `rota server`").into());
        }
        self.open()
    }

    fn open(self) -> anyhow::Result<Opened> {
        if let Some(store) = &self.store {
            let options = replica::options_alone(store, self.store_password_file.as_deref(), "transfer")?;
            return Ok(Opened::Database(Box::new(options)));
        }
        let data_dir = self.data_dir.context("a data directory or a database is required")?;
        private::directory(&data_dir)?;
        Ok(Opened::File(serve::database(&data_dir)))
    }
}

impl Opened {
    fn export(self, to: &mut (dyn Write + Send)) -> Result<Counts, Error> {
        match self {
            Self::File(path) => rota_store_sqlite::export(&path, to),
            Self::Database(options) => rota_store_postgres::export(*options, to),
        }
    }
}

impl Export {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let opened = self.place.open_existing()?;
        if is_standard(&self.file) {
            let written = tokio::task::spawn_blocking(move || {
                opened.export(&mut BufWriter::with_capacity(BUFFER_BYTES, io::stdout()))
            });
            let rows = written.await?.map_err(serve::store_failure)?;
            Reporter::new(globals.color).line(&format!("{} records exported", total(&rows)));
            return Ok(Exit::Ok);
        }
        let mut partial = PartialFile::create(&self.file)?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, partial.file()?);
        let rows = tokio::task::spawn_blocking(move || opened.export(&mut file)).await?;
        let rows = rows.map_err(serve::store_failure)?;
        partial.complete()?;
        print(globals, &rows, &self.file, "exported")
    }
}

impl Import {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let opened = self.place.open()?;
        let file = self.file.clone();
        let rows = tokio::task::spawn_blocking(move || {
            if is_standard(&file) {
                return anyhow::Ok(import(opened, BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
            }
            let from = File::open(&file).with_context(|| format!("failed to read {}", file.display()))?;
            Ok(import(opened, BufReader::with_capacity(BUFFER_BYTES, from)))
        });
        let rows = rows.await??.map_err(serve::store_failure)?;
        print(globals, &rows, &self.file, "imported")
    }
}

fn import(opened: Opened, mut from: impl io::BufRead + Send) -> Result<Counts, Error> {
    match opened {
        Opened::File(path) => rota_store_sqlite::import(&path, &mut from),
        Opened::Database(options) => rota_store_postgres::import(*options, &mut from),
    }
}

fn total(rows: &Counts) -> u64 {
    rows.values().sum()
}

fn print(globals: &Globals, rows: &Counts, file: &Path, done: &str) -> anyhow::Result<Exit> {
    let out = Out::new(globals.output, globals.color);
    match out.is_human() {
        true => out.line(&format!("{}: {} records {done}, complete", file.display(), total(rows)))?,
        false => out.value(&json!({ "file": file, "rows": rows }))?,
    }
    Ok(Exit::Ok)
}
