//! `multus.v1.ConfigurationService`.

use multus_proto::v1::configuration_service_server::ConfigurationService;
use multus_proto::v1::*;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, convert};
use crate::service::configuration::{Document, Save};

#[async_trait]
impl ConfigurationService for Api {
    async fn list(&self, request: Request<ListDocumentsRequest>) -> Result<Response<ListDocumentsResponse>, Status> {
        self.call(request, |service, caller, _| {
            let documents = service.documents(caller)?.into_iter().map(convert::document_info).collect();
            Ok(ListDocumentsResponse { documents })
        })
        .await
    }

    async fn get(&self, request: Request<GetDocumentRequest>) -> Result<Response<GetDocumentResponse>, Status> {
        self.call(request, |service, caller, GetDocumentRequest { document }| {
            let found = service.document(caller, &document.parse()?)?;
            Ok(GetDocumentResponse {
                document: found.document,
                text: found.text,
                exists: found.exists,
                version: found.version,
                etag: found.etag,
                schema_json: found.schema.map(|schema| schema.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn validate(&self, request: Request<ValidateRequest>) -> Result<Response<ValidateResponse>, Status> {
        self.call(request, |service, caller, ValidateRequest { document, text }| {
            let problems = service.validate(caller, &document.parse()?, &text)?;
            Ok(ValidateResponse { problems: problems.into_iter().map(convert::problem).collect() })
        })
        .await
    }

    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<SaveResponse>, Status> {
        self.call(request, |service, caller, message| {
            let SaveRequest { document, text, expected_version, comment } = message;
            let save = Save { text: &text, expected_version, comment: &comment };
            let saved = service.save(caller, &document.parse()?, &save)?;
            Ok(SaveResponse {
                version: saved.version,
                etag: saved.etag,
                problems: saved.problems.into_iter().map(convert::problem).collect(),
                pending: saved.pending.map(convert::pending),
            })
        })
        .await
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        self.call(request, |service, caller, HistoryRequest { document }| {
            let versions = service.history(caller, &document.parse()?)?;
            Ok(HistoryResponse { versions: versions.into_iter().map(convert::version_info).collect() })
        })
        .await
    }

    async fn get_version(&self, request: Request<GetVersionRequest>) -> Result<Response<GetVersionResponse>, Status> {
        self.call(request, |service, caller, GetVersionRequest { document, version }| {
            let (info, text) = service.version(caller, &document.parse()?, version)?;
            Ok(GetVersionResponse { info: Some(convert::version_info(info)), text })
        })
        .await
    }

    async fn roll_back(&self, request: Request<RollBackRequest>) -> Result<Response<RollBackResponse>, Status> {
        self.call(request, |service, caller, RollBackRequest { document, version, expected_version }| {
            let saved = service.roll_back(caller, &document.parse()?, version, expected_version)?;
            Ok(RollBackResponse {
                version: saved.version,
                etag: saved.etag,
                problems: saved.problems.into_iter().map(convert::problem).collect(),
                pending: saved.pending.map(convert::pending),
            })
        })
        .await
    }

    async fn pending(&self, request: Request<PendingRequest>) -> Result<Response<PendingResponse>, Status> {
        self.call(request, |service, caller, _| {
            Ok(PendingResponse { changes: service.pending(caller)?.into_iter().map(convert::pending).collect() })
        })
        .await
    }

    async fn apply_now(&self, request: Request<ApplyNowRequest>) -> Result<Response<ApplyNowResponse>, Status> {
        self.call(request, |service, caller, ApplyNowRequest { document }| {
            let change = service.apply_now(caller, &document.parse::<Document>()?)?;
            Ok(ApplyNowResponse { change: Some(convert::pending(change)) })
        })
        .await
    }

    async fn revert(&self, request: Request<RevertRequest>) -> Result<Response<RevertResponse>, Status> {
        self.call(request, |service, caller, RevertRequest { document }| {
            let change = service.revert(caller, &document.parse::<Document>()?)?;
            Ok(RevertResponse { change: Some(convert::pending(change)) })
        })
        .await
    }
}
