//! ListFunctions, ListVersionsByFunction and the pages of all lists.
//!
//! A marker is the key of the last item of a page, in base64 so that nobody takes it for a name: a page is found by its
//! key, so items that come or go meanwhile shift nothing.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use model::error::ApiError;
use model::limits;
use model::names::{FunctionReference, Version};
use model::validation::Violations;

use super::{Control, Described, failed, function_only};

/// Longest marker that is read, in bytes.
const MARKER_BYTES_MAX: usize = 1024;

/// Which page of a list is wanted, as sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// What the page before told as its next marker.
    pub marker: Option<String>,
    /// How many items, 1 to 10000; a page holds at most 50.
    pub max_items: Option<i64>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<String>,
}

impl PageRequest {
    /// The key after which the page begins.
    pub(super) fn after(&self) -> Result<Option<String>, ApiError> {
        let Some(marker) = self.marker.as_deref().filter(|marker| !marker.is_empty()) else {
            return Ok(None);
        };
        let short = Some(marker).filter(|marker| marker.len() <= MARKER_BYTES_MAX);
        let bytes = short.and_then(|marker| BASE64_URL_SAFE_NO_PAD.decode(marker).ok());
        let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        key.map(Some).ok_or_else(bad_marker)
    }

    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        let Some(wanted) = self.max_items else { return Ok(limits::PAGE_ITEMS_MAX) };
        let mut violations = Violations::default();
        violations.range("maxItems", wanted, 1, i64::from(limits::MAX_ITEMS_MAX));
        violations.into_result()?;
        Ok(u32::try_from(wanted).unwrap_or(limits::PAGE_ITEMS_MAX).min(limits::PAGE_ITEMS_MAX))
    }
}

impl<T> Page<T> {
    /// Makes a page out of up to `limit + 1` items: the one too many only says that there are more.
    pub(super) fn new(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let last = items.last().filter(|_| more);
        let next_marker = last.map(|last| BASE64_URL_SAFE_NO_PAD.encode(key(last)));
        Self { items, next_marker }
    }

    pub(super) fn map<U>(self, change: impl Fn(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next_marker: self.next_marker }
    }
}

impl Control {
    /// All functions by name; with `published`, each with all its versions, under their own ARNs.
    ///
    /// # Errors
    /// `ValidationException` or `InvalidParameterValueException` for a page that cannot be.
    pub async fn list_functions(
        &self,
        published: bool,
        page: &PageRequest,
    ) -> Result<Page<Described>, ApiError> {
        let limit = page.limit()?;
        let after = page.after()?.map(|key| parse_key(&key)).transpose()?;
        let records = self.meta().functions(published, after, limit + 1).await.map_err(failed)?;
        let page = Page::new(records, limit, |record| format!("{}:{}", record.name, record.version));
        Ok(page.map(|record| match published {
            true => self.described_version(record),
            false => self.described(record),
        }))
    }

    /// The versions of one function by number, `$LATEST` first.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, and as [`Control::list_functions`].
    pub async fn list_versions(
        &self,
        reference: FunctionReference,
        page: &PageRequest,
    ) -> Result<Page<Described>, ApiError> {
        let name = function_only(reference)?;
        let limit = page.limit()?;
        let after = page.after()?.map(|key| key.parse().map_err(|_| bad_marker())).transpose()?;
        self.latest(&name).await?;
        let records = self.meta().versions(&name, after, limit + 1).await.map_err(failed)?;
        let page = Page::new(records, limit, |record| record.version.to_string());
        Ok(page.map(|record| self.described_version(record)))
    }
}

fn parse_key(key: &str) -> Result<(String, Version), ApiError> {
    let (name, version) = key.split_once(':').ok_or_else(bad_marker)?;
    Ok((name.to_owned(), version.parse().map_err(|_| bad_marker())?))
}

fn bad_marker() -> ApiError {
    ApiError::invalid("Invalid Marker. Use the NextMarker of the page before.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_of_the_next_one_only_if_there_is_one() {
        let page = Page::new(vec![1, 2, 3], 2, i32::to_string);
        assert_eq!(page.items, [1, 2]);
        let next = PageRequest { marker: page.next_marker, max_items: None };
        assert_eq!(next.after(), Ok(Some("2".into())));
        assert_eq!(Page::new(vec![1, 2], 2, i32::to_string).next_marker, None);
    }

    #[test]
    fn pages_that_cannot_be_are_refused() {
        let with = |marker: &str, max_items| PageRequest { marker: Some(marker.into()), max_items };
        assert!(with("%%", None).after().is_err());
        assert!(with("", Some(0)).limit().is_err());
        assert!(with("", Some(10_001)).limit().is_err());
        assert_eq!(with("", Some(10_000)).limit(), Ok(50));
        assert!(parse_key("no colon").is_err());
    }
}
