// Zhiyin from Node: clients made from the protos at run time, calls as promises, errors with their details decoded.
import { fileURLToPath } from "node:url";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const here = path.dirname(fileURLToPath(import.meta.url));
const protoRoot = process.env.ZHIYIN_PROTOS ?? path.resolve(here, "../../../protos");
const loaded = protoLoader.loadSync(
  ["zhiyin/retrieval/v1/retrieval_service.proto", "zhiyin/ranking/v1/ranking_service.proto", "rpc_details.proto"],
  // Field names as in the protos, numbers of 64 bits as strings, enums by name.
  {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
    includeDirs: [protoRoot, path.join(here, "protos")],
  },
);
const { zhiyin } = grpc.loadPackageDefinition(loaded);

export const DEFAULT_DEADLINE_MS = 10_000;

/** Clients of the two services an application talks to. */
export function connect({ retrieval = "127.0.0.1:50052", ranking = "127.0.0.1:50053" } = {}) {
  const credentials = grpc.credentials.createInsecure();
  return {
    retrieval: promised(new zhiyin.retrieval.v1.RetrievalService(retrieval, credentials)),
    ranking: promised(new zhiyin.ranking.v1.RankingService(ranking, credentials)),
  };
}

/** A failed call: gRPC status, stable reason and every violation of the request. */
export class ZhiyinError extends Error {
  constructor(error) {
    super(error.details);
    this.code = error.code;
    this.status = grpc.status[error.code];
    this.reason = "";
    this.violations = [];
    this.retryAfterMs = null;
    for (const detail of statusDetails(error)) this.#read(detail);
  }

  #read({ type, value }) {
    if (type === "google.rpc.BadRequest") this.violations.push(...value.field_violations);
    if (type === "google.rpc.ErrorInfo") this.reason = value.reason;
    if (type === "google.rpc.RetryInfo") {
      this.retryAfterMs = Number(value.retry_delay.seconds) * 1e3 + value.retry_delay.nanos / 1e6;
    }
  }
}

function statusDetails(error) {
  const [trailer] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!trailer) return [];
  return loaded["google.rpc.Status"].deserialize(trailer).details.flatMap(({ type_url, value }) => {
    const type = type_url.split("/").pop();
    return type in loaded ? [{ type, value: loaded[type].deserialize(value) }] : [];
  });
}

/** Every unary method as `await client.Method(request, { deadlineMs })`. */
function promised(client) {
  return new Proxy(client, {
    get: (target, name) =>
      typeof target[name] !== "function" || name === "close"
        ? target[name]?.bind?.(target) ?? target[name]
        : (request, { deadlineMs = DEFAULT_DEADLINE_MS } = {}) =>
            new Promise((resolve, reject) =>
              target[name](request, { deadline: Date.now() + deadlineMs }, (error, response) =>
                error ? reject(new ZhiyinError(error)) : resolve(response),
              ),
            ),
  });
}
