//! The cases of the official GridFS specification, through a mount: `DBMOUNT_SPEC_TESTS` names the
//! folder that has them.

use std::fs;
use std::path::PathBuf;

use crate::mount::Mount;
use crate::server::Server;

/// Loads each case into a bucket of its own, does to the collections what the case does to them
/// itself, and prints a line for what is left to do: the bucket, the description, the operation,
/// its arguments, and what must come of it (bytes in hexadecimal, or `error`).
const LOAD: &str = r#"
n = 0
for name in ["delete", "deleteByName", "download", "downloadByName", "rename", "renameByName",
             "upload", "upload-disableMD5"]:
    with open(os.path.join(args[0], name + ".json")) as file:
        spec = json_util.loads(file.read(), json_options=json_util.RELAXED_JSON_OPTIONS)
    for case in spec["tests"]:
        bucket_name = "case%d" % n
        n += 1
        for part in spec["initialData"]:
            target = db[bucket_name + "." + part["collectionName"].split(".")[1]]
            if part["documents"]:
                target.insert_many(part["documents"])
        names = {it["_id"]: it.get("filename") for it in db[bucket_name + ".files"].find()}
        line = None
        for op in case["operations"]:
            given = op.get("arguments", {})
            if op["object"] == "bucket0":
                what = "error" if "expectError" in op else op.get("expectResult", "")
                if isinstance(what, dict):
                    what = what.get("$$matchesHexBytes", "")
                file_name = given.get("filename", names.get(given.get("id"), ""))
                more = given.get("newFilename") or given.get("source", {}).get("$$hexBytes", "")
                revision = given.get("revision", -1)
                line = [bucket_name, name + ": " + case["description"], op["name"],
                        file_name or "", more, str(revision), what]
            elif line is None:
                target = db[bucket_name + "." + op["object"].split("_")[1]]
                if op["name"] == "deleteOne":
                    target.delete_one(given["filter"])
                elif op["name"] == "updateOne":
                    target.update_one(given["filter"], given["update"])
                elif op["name"] == "bulkWrite":
                    for request in given["requests"]:
                        target.update_one(request["updateOne"]["filter"], request["updateOne"]["update"])
                else:
                    sys.exit("an operation that is not known: " + op["name"])
        print("\t".join(line))
"#;

/// What is left in a case's bucket of a name, and all its chunks.
const LEFT: &str = r#"
of = db[args[0] + ".files"], db[args[0] + ".chunks"]
docs = list(of[0].find({"filename": args[1]}))
print(len(docs), sum(of[1].count_documents({"files_id": doc["_id"]}) for doc in docs),
      [doc["length"] for doc in docs], any("md5" in doc for doc in docs),
      of[1].count_documents({"files_id": {"$nin": of[0].distinct("_id")}}))
"#;

#[test]
fn the_official_cases() {
    let Some(folder) = std::env::var_os("DBMOUNT_SPEC_TESTS") else {
        // They are not part of this project; its own gate has them.
        println!("0 cases run: DBMOUNT_SPEC_TESTS does not name the specification's tests");
        return;
    };
    let folder = PathBuf::from(folder).join("gridfs");
    let server = Server::set();
    let lines = server.python(LOAD, &[folder.to_str().unwrap()]);
    let (mut run, mut left_out) = (0, Vec::new());
    for line in lines.lines() {
        let [bucket, case, operation, name, more, revision, want] =
            line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let reason = match operation {
            "download" if name.is_empty() && want != "error" => {
                Some("a file without a name has no path")
            }
            "download" | "delete" | "rename" if name.is_empty() => {
                Some("an id that is not there has no path")
            }
            "downloadByName" if revision != "-1" => Some("a path leads to the newest revision"),
            _ => None,
        };
        if let Some(reason) = reason {
            left_out.push(format!("{case}: {reason}"));
            continue;
        }
        let mount = Mount::of(&server.url_of(crate::server::DB, bucket), &[], &[]);
        let at = mount.at(name);
        let left = |name: &str| server.python(LEFT, &[bucket, name]);
        let error = want == "error";
        match operation {
            "download" | "downloadByName" => match fs::read(&at) {
                Ok(bytes) => assert_eq!(hex(&bytes), want, "{case}"),
                Err(failed) => {
                    let missing = operation == "downloadByName";
                    let errno = if missing { 2 } else { 5 };
                    assert!(error, "{case}: {failed}");
                    assert_eq!(failed.raw_os_error(), Some(errno), "{case}: {failed}");
                }
            },
            "delete" | "deleteByName" => {
                assert_eq!(fs::remove_file(&at).is_err(), error, "{case}");
                mount.end();
                if !error {
                    assert_eq!(left(name), "0 0 [] False 0\n", "{case}");
                }
            }
            "rename" | "renameByName" => {
                assert_eq!(fs::rename(&at, mount.at(more)).is_err(), error, "{case}");
                mount.end();
                if !error {
                    assert_eq!(left(name), "0 0 [] False 0\n", "{case}");
                    assert!(!left(more).starts_with("0 "), "{case}");
                }
            }
            "upload" => {
                let bytes: Vec<u8> = (0..more.len() / 2)
                    .map(|n| u8::from_str_radix(&more[2 * n..2 * n + 2], 16).unwrap())
                    .collect();
                fs::write(&at, &bytes).unwrap();
                mount.end();
                // In chunks of our size: theirs, of 4 bytes, are smaller than the smallest.
                let chunks = usize::from(!bytes.is_empty());
                assert_eq!(left(name), format!("1 {chunks} [{}] False 0\n", bytes.len()), "{case}");
            }
            other => panic!("{case}: {other}"),
        }
        run += 1;
    }
    println!("{run} cases run, {} left out:\n{}", left_out.len(), left_out.join("\n"));
    assert!(run >= 20, "{run}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
