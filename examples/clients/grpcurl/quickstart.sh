#!/usr/bin/env bash
# The whole path from a shell: grpcurl learns the contract from the servers' reflection, no proto file is needed.
# Run against `zhiyin up`:  examples/clients/grpcurl/quickstart.sh
set -euo pipefail

GRPCURL=${GRPCURL:-grpcurl}
RETRIEVAL=${ZHIYIN_RETRIEVAL_ADDRESS:-127.0.0.1:50052}
RANKING=${ZHIYIN_RANKING_ADDRESS:-127.0.0.1:50053}
CATALOG=grpcurl-quickstart

retrieval() { "$GRPCURL" -plaintext -max-time 20 -d "$2" "$RETRIEVAL" "zhiyin.retrieval.v1.RetrievalService/$1"; }
ranking() { "$GRPCURL" -plaintext -max-time 20 -d "$2" "$RANKING" "zhiyin.ranking.v1.RankingService/$1"; }

echo "== what the server offers"
"$GRPCURL" -plaintext "$RANKING" list

retrieval CreateCatalog '{"catalog": {"name": "'$CATALOG'"}}' >/dev/null
trap 'retrieval DropCatalog "{\"catalog\": \"$CATALOG\"}" >/dev/null' EXIT

echo "== upsert"
retrieval UpsertItems '{
  "catalog": "'$CATALOG'",
  "items": [
    {"id": "arrival", "title": "Arrival", "text": "A linguist talks to visitors from space.", "categories": ["film"]},
    {"id": "interstellar", "title": "Interstellar", "text": "A flight through a wormhole.", "categories": ["film"]},
    {"id": "lijiang", "title": "云南丽江的旅游攻略", "text": "古城、雪山和蓝月谷。", "categories": ["travel"], "language": "zh"}
  ]
}'

echo "== event"
ranking RecordEvents '{
  "catalog": "'$CATALOG'",
  "events": [{"user_id": "grpcurl-user", "type": "EVENT_TYPE_FINISH", "item_id": "interstellar"}]
}'

echo "== recommend"
ranking Recommend '{"catalog": "'$CATALOG'", "user_id": "grpcurl-user", "page_size": 3}'

echo "== a request that is wrong in two ways: every violation is listed"
if ranking Recommend '{"catalog": "", "page_size": 1000}' 2>&1; then
  echo "the server should have refused" >&2
  exit 1
fi

ranking DeleteUser '{"catalog": "'$CATALOG'", "user_id": "grpcurl-user"}' >/dev/null
