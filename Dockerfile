# The millrace service. `docker build --tag millrace .`; its config is mounted at /etc/millrace/millrace.yaml.
ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json tsconfig.json tsconfig.build.json ./
RUN npm ci --ignore-scripts
COPY src src
COPY connectors connectors
COPY migrations migrations
RUN npm run build && npm prune --omit=dev --ignore-scripts

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules node_modules
COPY --from=build /build/dist dist
# the embedded queue, where one is configured
RUN install --directory --owner 65532 --group 65532 /var/lib/millrace
VOLUME /var/lib/millrace
# a number, so that an orchestrator can see that it is not root
USER 65532:65532
EXPOSE 9464
# node itself is process 1: SIGTERM reaches it and drains the pipeline
ENTRYPOINT ["node", "/app/dist/src/cli/main.js"]
CMD ["run", "--config", "/etc/millrace/millrace.yaml"]
