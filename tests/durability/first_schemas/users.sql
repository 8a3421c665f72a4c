BEGIN TRANSACTION;
CREATE TABLE attribute_kinds (
	catalog_key INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	PRIMARY KEY (catalog_key, name), 
	FOREIGN KEY(catalog_key) REFERENCES catalogs (catalog_key)
);
INSERT INTO "attribute_kinds" VALUES(1,'city','s');
CREATE TABLE catalogs (
	catalog_key INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	sequence BIGINT NOT NULL, 
	PRIMARY KEY (catalog_key), 
	UNIQUE (name)
);
INSERT INTO "catalogs" VALUES(1,'default',7);
INSERT INTO "catalogs" VALUES(2,'films',1);
CREATE TABLE erasures (
	catalog_key INTEGER NOT NULL, 
	sequence BIGINT NOT NULL, 
	user_key INTEGER NOT NULL, 
	PRIMARY KEY (catalog_key, sequence), 
	FOREIGN KEY(catalog_key) REFERENCES catalogs (catalog_key)
)
 WITHOUT ROWID

;
INSERT INTO "erasures" VALUES(1,7,4);
CREATE TABLE events (
	catalog_key INTEGER NOT NULL, 
	sequence BIGINT NOT NULL, 
	event_id TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	user_key INTEGER NOT NULL, 
	event_type SMALLINT NOT NULL, 
	item_id TEXT NOT NULL, 
	value FLOAT, 
	time_us BIGINT NOT NULL, 
	session_id TEXT NOT NULL, 
	text TEXT NOT NULL, 
	context TEXT, 
	attribution_token TEXT NOT NULL, 
	list_id TEXT NOT NULL, 
	PRIMARY KEY (catalog_key, sequence), 
	UNIQUE (catalog_key, event_id), 
	FOREIGN KEY(catalog_key) REFERENCES catalogs (catalog_key)
)
 WITHOUT ROWID

;
INSERT INTO "events" VALUES(1,1,'e1',X'CDF6496FC1C433A010730E6224C9648D',1,5,'a',NULL,1700000000000000,'','',NULL,'','');
INSERT INTO "events" VALUES(1,2,'e2',X'1197F0D5DD15BB0DB8BF14BD86B9F95D',2,10,'b',4.5,1700000005000000,'','',NULL,'','');
INSERT INTO "events" VALUES(1,3,'e3',X'7A9C3DAB636FD672AC2B2D2B6CF122B6',1,12,'',NULL,1700000009000000,'','爵士 jazz',NULL,'','');
INSERT INTO "events" VALUES(1,4,'e4',X'CDEC7794BDA7883601BA95DDB65C4481',3,9,'a',NULL,1700000020000000,'','',NULL,'','');
INSERT INTO "events" VALUES(2,1,'e6',X'1118218AB0B583F9A0A61CFD6CAA7DBF',5,3,'f',0.95,1700000030000000,'','',NULL,'','');
CREATE TABLE follows (
	user_key INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	followed_id TEXT NOT NULL, 
	PRIMARY KEY (user_key, position), 
	FOREIGN KEY(user_key) REFERENCES users (user_key)
);
INSERT INTO "follows" VALUES(2,0,'bob');
INSERT INTO "follows" VALUES(2,1,'ann');
CREATE TABLE store_facts (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "store_facts" VALUES('epoch','12a31eb00ca48d11');
INSERT INTO "store_facts" VALUES('schema_version','1');
CREATE TABLE users (
	user_key INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	catalog_key INTEGER NOT NULL, 
	user_id TEXT NOT NULL, 
	profile TEXT NOT NULL, 
	attributes TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	version BIGINT NOT NULL, 
	event_count BIGINT NOT NULL, 
	sequence BIGINT NOT NULL, 
	updated_us BIGINT NOT NULL, 
	UNIQUE (catalog_key, user_id), 
	FOREIGN KEY(catalog_key) REFERENCES catalogs (catalog_key)
);
INSERT INTO "users" VALUES(1,1,'ann','','{}',0,2,2,3,0);
INSERT INTO "users" VALUES(2,1,'安','喜欢看电影','{"city": ["s", "成都"]}',1,2,1,6,1795518776481096);
INSERT INTO "users" VALUES(3,1,'bob','','{}',0,1,1,5,0);
INSERT INTO "users" VALUES(5,2,'ann','','{}',0,1,1,1,0);
CREATE INDEX users_by_sequence ON users (catalog_key, sequence);
CREATE INDEX events_by_user ON events (user_key, time_us, sequence);
CREATE INDEX follows_by_followed ON follows (followed_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('users',5);
COMMIT;
