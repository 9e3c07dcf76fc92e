create role sogo login password 'sogo';
create database sogo owner sogo;
\connect sogo sogo
create table sogo_users (
    c_uid varchar(64) primary key,
    c_name varchar(64),
    c_password varchar(128),
    c_cn varchar(128),
    mail varchar(128)
);
