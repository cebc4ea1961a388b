//! Packages from NuGet, by plain HTTPS with curl: what an install needs of the registry's protocol, and no more.
//!
//! **A package is used only if its SHA-512 is the one that the registry's catalog publishes for it.** Restoring packages
//! with the SDK would need the SDK, which is no part of running functions; curl is everywhere and knows the user's proxy
//! and certificates.
//!
//! Source of the protocol: https://learn.microsoft.com/nuget/api/overview (service index, package content, registration
//! leaf, catalog leaf). Deliberately absent: credentials, and dependencies between packages.

use std::io::{Cursor, Read, Seek};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha512};

use crate::runtime::tools;

/// The service index of the registry, unless this variable names another one.
const SERVICE: &str = "https://api.nuget.org/v3/index.json";
const SERVICE_VARIABLE: &str = "REKINDLE_NUGET_SOURCE";

/// The largest file of a package that is unpacked, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A registry that has said where its services are.
pub struct Source {
    packages: String,
    registrations: String,
}

impl Source {
    /// Asks the registry where its services are.
    ///
    /// # Errors
    ///
    /// If it does not answer, or lacks a service that is needed here.
    pub fn open() -> Result<Self> {
        let service = std::env::var(SERVICE_VARIABLE).unwrap_or_else(|_| SERVICE.to_owned());
        let index: ServiceIndex = get_json(&service).with_context(|| {
            format!(
                "remedy: name another registry in {SERVICE_VARIABLE}, or the client's directory with --client"
            )
        })?;
        let place = |kind: &str| {
            let found = index.resources.iter().find(|resource| resource.kind == kind);
            let url = found.map(|resource| resource.id.trim_end_matches('/').to_owned());
            url.with_context(|| format!("{service} offers no {kind}"))
        };
        Ok(Self {
            packages: place("PackageBaseAddress/3.0.0")?,
            registrations: place("RegistrationsBaseUrl/3.6.0")?,
        })
    }

    /// Fetches and checks the newest release of a package.
    ///
    /// # Errors
    ///
    /// If there is none, or if the file is not the one that the registry's catalog describes.
    pub fn newest(&self, id: &str) -> Result<(Package, String)> {
        let id = id.to_lowercase();
        let known: Versions = get_json(&format!("{}/{id}/index.json", self.packages))?;
        // The registry lists them in order; a hyphen marks a preview.
        let version = known.versions.into_iter().rfind(|version| !version.contains('-'));
        let version = version.with_context(|| format!("{id} has no release"))?;
        let url = format!("{}/{id}/{version}/{id}.{version}.nupkg", self.packages);
        let content = get(&url)?;
        let leaf: Leaf = get_json(&format!("{}/{id}/{version}.json", self.registrations))?;
        let published: Published = get_json(&leaf.catalog_entry)?;
        published.check(&content).with_context(|| url.clone())?;
        Ok((Package::open(content).with_context(|| url)?, version))
    }
}

/// A package whose content was checked.
pub struct Package {
    archive: zip::ZipArchive<Cursor<Vec<u8>>>,
}

impl Package {
    fn open(content: Vec<u8>) -> Result<Self> {
        Ok(Self { archive: zip::ZipArchive::new(Cursor::new(content))? })
    }

    /// The names of its files that are wanted, in order.
    pub fn files(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names: Vec<String> =
            self.archive.file_names().filter(|name| is_wanted(name)).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Writes one of its files to `target`.
    ///
    /// # Errors
    ///
    /// If it is too large or damaged, or if `target` cannot be written.
    pub fn unpack(&mut self, name: &str, target: &Path) -> Result<()> {
        unpack(&mut self.archive, name, target).with_context(|| format!("unpack {name}"))
    }

    /// A package with these files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        use std::io::Write;
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        Self::open(writer.finish().unwrap().into_inner()).unwrap()
    }
}

fn unpack(archive: &mut zip::ZipArchive<impl Read + Seek>, name: &str, target: &Path) -> Result<()> {
    let entry = archive.by_name(name)?;
    let mut content = Vec::new();
    entry.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    ensure!(content.len() as u64 <= FILE_BYTES_MAX, "it is larger than {FILE_BYTES_MAX} bytes");
    std::fs::write(target, content)?;
    Ok(())
}

#[derive(Deserialize)]
struct ServiceIndex {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "@id")]
    id: String,
    #[serde(rename = "@type")]
    kind: String,
}

#[derive(Deserialize)]
struct Versions {
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Leaf {
    #[serde(rename = "catalogEntry")]
    catalog_entry: String,
}

#[derive(Deserialize)]
struct Published {
    #[serde(rename = "packageHash")]
    hash: String,
    #[serde(rename = "packageHashAlgorithm")]
    algorithm: String,
}

impl Published {
    fn check(&self, content: &[u8]) -> Result<()> {
        ensure!(self.algorithm == "SHA512", "the registry publishes its {}, not its SHA512", self.algorithm);
        let found = STANDARD.encode(Sha512::digest(content));
        if found != self.hash {
            bail!(
                "it is not the file that the registry describes: its SHA-512 is {found}, not {}",
                self.hash
            );
        }
        Ok(())
    }
}

fn get_json<T: DeserializeOwned>(url: &str) -> Result<T> {
    serde_json::from_slice(&get(url)?).with_context(|| format!("{url} is not what the protocol says"))
}

fn get(url: &str) -> Result<Vec<u8>> {
    let mut curl = Command::new("curl");
    curl.args([
        "--fail",
        "--silent",
        "--show-error",
        "--location",
        "--compressed",
        "--retry",
        "3",
        "--max-time",
        "300",
    ]);
    tools::finish(curl.arg(url)).with_context(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_the_published_one_is_refused() {
        let published =
            Published { hash: STANDARD.encode(Sha512::digest("package")), algorithm: "SHA512".to_owned() };
        published.check(b"package").unwrap();
        let error = published.check(b"another").unwrap_err().to_string();
        assert!(error.contains("not the file that the registry describes"), "{error}");
    }

    #[test]
    fn a_service_index_is_read() {
        let index = r#"{"version":"3.0.0","resources":[
            {"@id":"https://nuget.example/flat/","@type":"PackageBaseAddress/3.0.0","comment":"content"}]}"#;
        let index: ServiceIndex = serde_json::from_str(index).unwrap();
        assert_eq!(index.resources[0].id, "https://nuget.example/flat/");
    }
}
