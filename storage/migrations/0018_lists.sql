-- migrate:up

-- Lists of a million are narrowed down by what few have: without these a rare name, version or region would be
-- looked for among all of a project. Names in order of their bytes, as the lists go.
create index node_name on node (project_id, name collate "C", node_id);
create index node_region on node (project_id, region, node_id);
create index node_version on node (project_id, manager_version, node_id);
create index workload_name on workload (project_id, name collate "C", workload_id);
create index workload_version_of on workload (project_id, running_version, workload_id);
create index workload_kind_list on workload (kind_id, workload_id) where kind_id is not null;

-- migrate:down

drop index node_name, node_region, node_version, workload_name, workload_version_of, workload_kind_list;
