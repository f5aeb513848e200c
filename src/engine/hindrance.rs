//! What stands in the way of a step, as the seams tell it.

use super::administrator::ADMINISTRATOR_REFUSED;
use super::drive::Hindrance;
use crate::issuers::IssuerError;
use crate::stores::StoreError;

impl From<StoreError> for Hindrance {
    fn from(error: StoreError) -> Hindrance {
        let code = match error {
            StoreError::Damaged { .. } => "store-damaged",
            StoreError::Unavailable(_) => "store-unavailable",
            StoreError::Throttled { .. } => "store-throttled",
            _ => "store-refused",
        };
        let retry_after = if let StoreError::Throttled { retry_after } = error { Some(retry_after) } else { None };
        Hindrance { retry_after, ..Hindrance::new(code, error.to_string()) }
    }
}

impl From<IssuerError> for Hindrance {
    fn from(error: IssuerError) -> Hindrance {
        let code = match error {
            IssuerError::Unauthenticated => "provider-unauthenticated",
            IssuerError::AdministratorRefused => ADMINISTRATOR_REFUSED,
            IssuerError::Refused { .. } | IssuerError::Impossible(_) => "provider-refused",
            IssuerError::Full => "no-free-slot",
            IssuerError::Throttled { .. } => "provider-throttled",
            IssuerError::Unreachable(_) => "provider-unreachable",
            IssuerError::Unclear(_) | IssuerError::BadValue => "provider-unclear",
        };
        let retry_after = if let IssuerError::Throttled { retry_after } = error { retry_after } else { None };
        Hindrance { retry_after, ..Hindrance::new(code, error.to_string()) }
    }
}
