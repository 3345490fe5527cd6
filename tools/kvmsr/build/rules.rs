// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's rules: those of its register table, which `make registers` writes, and those of its
//! vendor modules.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::error::Error;
use std::fs;

use serde::Deserialize;

use crate::literal;
use crate::rows;

/// All rules.
pub struct Rules {
    table: Table,
    of_modules: Vec<ModuleRow>,
    of_bits: Vec<BitRow>,
    moving: Vec<MovingRow>,
    features: HashMap<String, String>,
}

/// `registers.json`; tools/engine-host/src/reference/data.rs describes its values.
#[derive(Deserialize)]
struct Table {
    registers: Vec<Register>,
    undeclared: Register,
}

#[derive(Deserialize)]
struct Register {
    first: String,
    last: String,
    name: String,
    served: Served,
    #[serde(default)]
    checks: Vec<Check>,
    read: Access,
    write: Access,
    listed: Option<List>,
    feature_msr: Option<String>,
    words: Words,
}

#[derive(Deserialize)]
struct Served {
    amd: Ways,
    intel: Ways,
}

#[derive(Deserialize)]
struct Ways {
    read: String,
    write: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    way: String,
    by: String,
    #[serde(default)]
    first: bool,
    #[serde(default)]
    any_of: Vec<String>,
    #[serde(default)]
    host_only: bool,
    only_with: Option<String>,
    kvm: Option<String>,
    otherwise: String,
}

#[derive(Deserialize)]
struct Access {
    does: String,
    value: Option<String>,
    reserved: Option<String>,
    address: Option<String>,
}

#[derive(Deserialize)]
struct List {
    kind: String,
}

#[derive(Deserialize)]
struct Words {
    checked: String,
    read: String,
    write: String,
    lists: String,
}

/// A row of `vendor_rules.csv`.
#[derive(Deserialize)]
struct ModuleRow {
    first: String,
    last: String,
    vendor: String,
    way: String,
    by: String,
    needs: String,
    otherwise: String,
    reserved: String,
    words: String,
}

/// A row of `bit_rules.csv`: what writes of some bits need.
#[derive(Deserialize)]
struct BitRow {
    first: String,
    last: String,
    vendor: String,
    by: String,
    bits: String,
    needs: String,
    otherwise: String,
}

/// A row of `moving.csv`.
#[derive(Deserialize)]
struct MovingRow {
    first: String,
    last: String,
}

#[derive(Deserialize)]
struct FeatureRow {
    name: String,
    leaf: String,
    subleaf: u32,
    register: String,
    bit: u8,
}

/// Reads the files with rules.
pub fn read() -> Result<Rules, Box<dyn Error>> {
    let mut features = HashMap::new();

    for row in rows::read::<FeatureRow>("cpuid.csv")? {
        let register = match row.register.as_str() {
            "eax" => "Eax",
            "ebx" => "Ebx",
            "ecx" => "Ecx",
            "edx" => "Edx",
            other => return Err(format!("CPUID has no register '{other}'").into()),
        };
        let feature = format!(
            "Feature {{ name: {:?}, function: {:#x}, index: {:#x}, register: \
             Register::{register}, bit: {} }}",
            row.name,
            literal::index(&row.leaf)?,
            row.subleaf,
            row.bit
        );

        features.insert(row.name, feature);
    }
    Ok(Rules {
        table: serde_json::from_str(&fs::read_to_string("data/registers.json")?)
            .map_err(|error| format!("data/registers.json: {error}"))?,
        of_modules: rows::read("vendor_rules.csv")?,
        of_bits: rows::read("bit_rules.csv")?,
        moving: rows::read("moving.csv")?,
        features,
    })
}

impl Rules {
    /// The names in the table, and their first indices.
    pub fn names(&self) -> impl Iterator<Item = (&str, u32)> {
        self.table.registers.iter().filter_map(|register| {
            Some((
                register.name.as_str(),
                literal::index(&register.first).ok()?,
            ))
        })
    }

    /// The arrays `RULES`, `RANGES`, `OF_MODULES` and `MOVING`, and `UNDECLARED`.
    pub fn arrays(&self) -> Result<String, Box<dyn Error>> {
        let rules = self
            .table
            .registers
            .iter()
            .map(|register| self.rule(register))
            .collect::<Result<Vec<_>, _>>()?;
        let of_modules = self
            .of_modules
            .iter()
            .map(|row| self.of_module(row))
            .chain(self.of_bits.iter().map(|row| self.of_bit(row)))
            .collect::<Result<Vec<_>, _>>()?;
        let moving = self
            .moving
            .iter()
            .map(|row| {
                Ok(format!(
                    "({:#x}, {:#x})",
                    literal::index(&row.first)?,
                    literal::index(&row.last)?
                ))
            })
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;

        Ok([
            literal::table("RULES", "Rule", &rules),
            literal::table("RANGES", "(u32, u32, u16)", &self.ranges()?),
            literal::table("OF_MODULES", "OfModule", &of_modules),
            literal::table("MOVING", "(u32, u32)", &moving),
            format!(
                "pub(super) static UNDECLARED: Rule = {};\n",
                self.rule(&self.table.undeclared)?
            ),
        ]
        .concat())
    }

    /// Ranges that do not overlap, sorted by index. If two declarations have an index, the first
    /// one applies.
    fn ranges(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let mut declared = Vec::new();
        let mut starts = BTreeSet::new();

        for (at, register) in self.table.registers.iter().enumerate() {
            let (first, last) = (
                literal::index(&register.first)?,
                literal::index(&register.last)?,
            );

            declared.push((first, last, at));
            starts.extend([first, last + 1]);
        }
        let starts: Vec<_> = starts.into_iter().collect();

        Ok(starts
            .windows(2)
            .filter_map(|window| {
                let (first, last) = (window[0], window[1] - 1);
                let (_, _, at) = declared
                    .iter()
                    .find(|(from, to, _)| (from..=to).contains(&&first))?;

                Some(format!("({first:#x}, {last:#x}, {at})"))
            })
            .collect())
    }

    fn rule(&self, register: &Register) -> Result<String, Box<dyn Error>> {
        let checks = register
            .checks
            .iter()
            .map(|check| self.check(check))
            .collect::<Result<Vec<_>, _>>()?;
        let list = match register.listed.as_ref().map(|list| list.kind.as_str()) {
            None => "None",
            Some("saved") => "Some(List::Saved)",
            Some("emulated") => "Some(List::Emulated)",
            Some(other) => return Err(format!("there is no list '{other}'").into()),
        };
        let feature_msr = match register.feature_msr.as_deref() {
            None => "None",
            Some("fixed") => "Some(FeatureMsr::Fixed)",
            Some("changing") => "Some(FeatureMsr::Changing)",
            Some(other) => return Err(format!("no feature MSR is '{other}'").into()),
        };
        let words = &register.words;

        Ok(format!(
            "Rule {{ first: {:#x}, last: {:#x}, name: {:?}, amd: {}, intel: {}, checks: {}, read: \
             {}, write: {}, list: {list}, feature_msr: {feature_msr}, words: Words {{ checked: \
             {:?}, read: {:?}, write: {:?}, lists: {:?} }} }}",
            literal::index(&register.first)?,
            literal::index(&register.last)?,
            register.name,
            ways(&register.served.amd)?,
            ways(&register.served.intel)?,
            literal::slice(checks),
            access(&register.read)?,
            access(&register.write)?,
            words.checked,
            words.read,
            words.write,
            words.lists,
        ))
    }

    fn check(&self, check: &Check) -> Result<String, Box<dyn Error>> {
        let needs = match (&check.kvm, check.host_only) {
            (Some(what), _) => format!("Needs::Kvm({what:?})"),
            (None, true) => "Needs::Host".to_owned(),
            (None, false) => self.any_of(check.any_of.iter().map(String::as_str))?,
        };

        Ok(format!(
            "Check {{ way: {}, by: {}, vendor: None, bits: u64::MAX, first: {}, needs: {needs}, only_with: {}, otherwise: {} }}",
            way(&check.way)?,
            by(&check.by)?,
            check.first,
            literal::some(check.only_with.as_deref()),
            otherwise(&check.otherwise)?,
        ))
    }

    fn any_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<String, Box<dyn Error>> {
        let features = names
            .map(|name| {
                self.features
                    .get(name)
                    .ok_or_else(|| format!("data/cpuid.csv lacks {name}"))
            })
            .collect::<Result<Vec<_>, _>>()?;

        Ok(format!("Needs::AnyOf({})", literal::slice(features)))
    }

    fn of_bit(&self, row: &BitRow) -> Result<String, Box<dyn Error>> {
        Ok(format!(
            "OfModule {{ first: {:#x}, last: {:#x}, reserved: 0, words: \"\", check: Check {{ way: \
             Some(Way::Write), by: {}, vendor: {}, bits: {:#x}, first: false, needs: {}, only_with: \
             None, otherwise: {} }} }}",
            literal::index(&row.first)?,
            literal::index(&row.last)?,
            by(&row.by)?,
            vendor(&row.vendor)?,
            literal::number(&row.bits)?,
            self.any_of(row.needs.split('|'))?,
            otherwise(&row.otherwise)?,
        ))
    }

    fn of_module(&self, row: &ModuleRow) -> Result<String, Box<dyn Error>> {
        let vendor = vendor(&row.vendor)?;
        let needs = match row.needs.as_str() {
            "" => format!("Needs::Words({:?})", row.words),
            "host" => "Needs::Host".to_owned(),
            "nobody" => "Needs::Nobody".to_owned(),
            features => self.any_of(features.split('|'))?,
        };
        let reserved = match row.reserved.as_str() {
            "" => 0,
            mask => literal::number(mask)?,
        };

        Ok(format!(
            "OfModule {{ first: {:#x}, last: {:#x}, reserved: {reserved:#x}, words: {:?}, check: \
             Check {{ way: {}, by: {}, vendor: {vendor}, bits: u64::MAX, first: false, needs: {needs}, only_with: \
             None, otherwise: {} }} }}",
            literal::index(&row.first)?,
            literal::index(&row.last)?,
            row.words,
            way(&row.way)?,
            by(&row.by)?,
            otherwise(&row.otherwise)?,
        ))
    }
}

fn ways(ways: &Ways) -> Result<String, Box<dyn Error>> {
    let server = |text: &str| match text {
        "kvm" => Ok("Server::Kvm"),
        "vendor" => Ok("Server::Module"),
        "vendor-in-l2" => Ok("Server::ModuleInL2"),
        other => Err(format!("there is no server '{other}' of MSRs")),
    };

    Ok(format!(
        "Served {{ read: {}, write: {} }}",
        server(&ways.read)?,
        server(&ways.write)?
    ))
}

fn access(access: &Access) -> Result<String, Box<dyn Error>> {
    let number = |text: &Option<String>| -> Result<String, Box<dyn Error>> {
        Ok(match text {
            Some(text) => format!("Some({:#x})", literal::number(text)?),
            None => "None".to_owned(),
        })
    };

    Ok(format!(
        "Access {{ does: {:?}, value: {}, reserved: {}, address: {} }}",
        access.does,
        number(&access.value)?,
        number(&access.reserved)?,
        literal::some(access.address.as_deref())
    ))
}

fn vendor(text: &str) -> Result<&'static str, Box<dyn Error>> {
    Ok(match text {
        "any" => "None",
        "amd" => "Some(Vendor::Amd)",
        "intel" => "Some(Vendor::Intel)",
        other => return Err(format!("there is no vendor '{other}'").into()),
    })
}

fn way(text: &str) -> Result<&'static str, Box<dyn Error>> {
    Ok(match text {
        "read" => "Some(Way::Read)",
        "write" => "Some(Way::Write)",
        "any" => "None",
        other => return Err(format!("'{other}' is not a kind of access").into()),
    })
}

fn by(text: &str) -> Result<&'static str, Box<dyn Error>> {
    Ok(match text {
        "guest" => "Some(Initiator::Guest)",
        "host" => "Some(Initiator::Host)",
        "any" => "None",
        other => return Err(format!("there is no initiator '{other}'").into()),
    })
}

fn otherwise(text: &str) -> Result<&'static str, Box<dyn Error>> {
    Ok(match text {
        "unknown" => "Some(Otherwise::Unknown)",
        "invalid" => "Some(Otherwise::Invalid)",
        "dropped" => "Some(Otherwise::Dropped)",
        "remark" => "None",
        other => return Err(format!("there is no result '{other}'").into()),
    })
}
